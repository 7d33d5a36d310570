//go:build !(linux && amd64)

package launcher

import "errors"

// inspectable: the registers of this architecture are not known here; the operator must accept
// the degradation "inspect".
const inspectable = false

type inspection struct{}

type question struct {
	name string
	sees string
}

func questions() []question { return nil }

func (l *launcher) inspect(*child) error {
	return errors.New("BUG: no inspection on this architecture")
}
