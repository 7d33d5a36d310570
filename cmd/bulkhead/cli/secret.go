package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bulkhead/policy"
	"bulkhead/supervisor/secrets"
)

func secretCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "secret", Short: "Set, list and remove tenants' secrets",
		Long: "Secrets stand in a worker's env beside its vars. They are encrypted here, to the key of the running\n" +
			"host, and opened when the worker is loaded. Nothing prints a value again.",
		RunE: func(*cobra.Command, []string) error { return usagef("one of: key, set, list, rm") },
	}
	c.AddCommand(secretKeyCommand(), secretSetCommand(), secretListCommand(), secretRemoveCommand())
	return c
}

func secretKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key FILE", Short: "Make the host's key for secrets", Args: cobra.ExactArgs(1),
		Long: "Make a key (an age identity file) for serve --secrets-key FILE. Who has it can read all secrets that\n" +
			"the host keeps; without it they are lost. age -d -i FILE opens them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, recipient, err := secrets.NewKey()
			if err != nil {
				return err
			}
			defer clear(text)
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%s is there already, and may be the key to secrets; choose another name", args[0])
			}
			if err != nil {
				return err
			}
			_, err = f.Write(text)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: public key %s\n", args[0], recipient)
			return nil
		},
	}
}

func secretArgs(tenant, name string) error {
	switch {
	case !policy.ValidTenantID(tenant):
		return usagef("%q cannot be a tenant id", tenant)
	case !secrets.ValidName(name):
		return usagef("%q cannot be the name of a secret: letters, digits and _, not beginning with a digit", name)
	}
	return nil
}

func secretSetCommand() *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use: "set TENANT NAME", Short: "Set a secret to what standard input says", Args: cobra.ExactArgs(2),
		Long:    "Set a secret to all of standard input, a line end at its end included. The worker is loaded anew with it.",
		Example: "  printf %s \"$TOKEN\" | bulkhead secret set shop API_TOKEN\n  bulkhead secret set shop API_TOKEN < token.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := secretArgs(args[0], args[1]); err != nil {
				return err
			}
			// No core dump, and no other process of this user may look inside.
			if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
				return fmt.Errorf("prctl: %w", err)
			}
			var key struct{ Recipient string }
			if _, err := f.get(cmd.Context(), "GET", "/v1/secretskey", &key); err != nil {
				return err
			}
			value := make([]byte, secrets.MaxValue+1)
			defer clear(value)
			n, err := io.ReadFull(cmd.InOrStdin(), value)
			switch {
			case err == nil:
				return fmt.Errorf("a secret has at most %d bytes", secrets.MaxValue)
			case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
				return fmt.Errorf("standard input: %w", err)
			case n == 0:
				return usagef("standard input is empty: the value is read from there, as in  printf %%s \"$TOKEN\" | bulkhead secret set %s %s", args[0], args[1])
			}
			cipher, err := secrets.Seal(key.Recipient, value[:n])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			resp, err := f.send(ctx, "PUT", "/v1/secrets/"+args[0]+"/"+args[1], bytes.NewReader(cipher))
			if err != nil {
				return err
			}
			resp.Body.Close()
			fmt.Fprintf(cmd.OutOrStdout(), "%s of %s is set\n", args[1], args[0])
			return nil
		},
	}
	f.add(c)
	return c
}

func secretRemoveCommand() *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use: "rm TENANT NAME", Short: "Remove a secret", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := secretArgs(args[0], args[1]); err != nil {
				return err
			}
			var gone struct{}
			_, err := f.get(cmd.Context(), "DELETE", "/v1/secrets/"+args[0]+"/"+args[1], &gone)
			return err
		},
	}
	f.add(c)
	return c
}

func secretListCommand() *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use: "list TENANT", Short: "List the names of a tenant's secrets", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := secretArgs(args[0], "X"); err != nil {
				return err
			}
			var list []secrets.Info
			raw, err := f.get(cmd.Context(), "GET", "/v1/secrets/"+args[0], &list)
			if err != nil {
				return err
			}
			if f.json {
				_, err := cmd.OutOrStdout().Write(raw)
				return err
			}
			var rows [][]string
			for _, s := range list {
				rows = append(rows, []string{s.Name, s.Changed.Local().Format(time.DateTime)})
			}
			return table(cmd.OutOrStdout(), []string{"NAME", "CHANGED"}, rows)
		},
	}
	f.add(c)
	f.addJSON(c)
	return c
}
