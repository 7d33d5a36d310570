package policy

import (
	"encoding/json"
	"time"
)

// enum, list and the others are pieces of JSON Schema (draft 2020-12).
func enum(values []string) map[string]any { return map[string]any{"enum": values} }

func list(item map[string]any) map[string]any {
	return map[string]any{"type": "array", "items": item}
}

func durationSchema(low, high time.Duration) map[string]any {
	return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))*$`,
		"description": "a time from " + duration(low) + " to " + duration(high)}
}

func bytesSchema(low, high uint64) map[string]any {
	return map[string]any{"description": "a size from " + FormatBytes(low) + " to " + FormatBytes(high), "anyOf": []any{
		map[string]any{"type": "integer", "minimum": low, "maximum": high},
		map[string]any{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)? *(KiB|MiB|GiB)?$`},
	}}
}

// Schema is the JSON Schema of policy documents, for editors. It is made of the table the parser
// reads by: a key it has not is no key of a policy.
func Schema() []byte {
	p, err := Preset("standard")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	r := &reader{p: p}
	var s settings
	var class Class
	var cordon Cordon
	root := object(r.top(), "")
	props := root["properties"].(map[string]any)
	props["classes"] = named(object(r.class(&class), "class."), "kinds of shards, by name")
	props["cordons"] = named(object(r.cordon(&cordon), "cordon."), "levels of trust that never share a process, by name")
	var api HostAPI
	props["hostApis"] = named(object(r.hostAPI(&api), "hostApi."), described("hostApis"))
	props["labels"] = named(map[string]any{"type": "array", "items": map[string]any{"type": "string"}}, "tenant ids and globs, by label")
	props["class"] = map[string]any{"type": "string", "description": described("class")}
	props["cordon"] = map[string]any{"type": "string", "description": described("cordon")}
	var call CallRule
	for _, key := range []string{"calls", "tails"} {
		props[key] = map[string]any{"type": []string{"array", "null"}, "maxItems": maxCallRules, "items": object(r.call(&call), key+"."), "description": described(key)}
	}
	props["tenants"] = map[string]any{"type": []string{"object", "null"}, "additionalProperties": object(r.tenant(&s), "tenant."),
		"description": "what tenants get that differ, by id, by glob (acme-*) or by label (label:premium)"}
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "bulkhead policy"
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("BUG: schema cannot be encoded: " + err.Error())
	}
	return append(b, '\n')
}

// object is a mapping of known keys. YAML's `key:` without a value is null, and an empty section.
func object(table []field, prefix string) map[string]any {
	props := map[string]any{}
	for _, f := range table {
		switch {
		case f.fields != nil:
			o := object(f.fields, prefix+f.name+".")
			o["description"] = described(prefix + f.name)
			props[f.name] = o
		case f.schema != nil:
			v := map[string]any{}
			for k, x := range f.schema {
				v[k] = x
			}
			text := described(prefix + f.name)
			if range_, ok := v["description"].(string); ok {
				text += "; " + range_
			}
			v["description"] = text
			props[f.name] = v
		}
	}
	return map[string]any{"type": []string{"object", "null"}, "additionalProperties": false, "properties": props}
}

func named(item map[string]any, what string) map[string]any {
	return map[string]any{"type": []string{"object", "null"}, "additionalProperties": item, "maxProperties": maxNames, "description": what,
		"propertyNames": map[string]any{"pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}}
}
