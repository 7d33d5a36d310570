package bundle

import (
	"fmt"

	"github.com/evanw/esbuild/pkg/api"
)

// Modules that no folder has: what workers import from their host. They are JavaScript that goes into
// the bundle like any other, and give nothing that the worker could not write itself.

const hostNamespace = "bulkhead"

// workersModule is "cloudflare:workers", by the name under which worker projects know it. The symbol marks
// classes whose methods other workers may call (sandboxworker/runtime/js/rpc).
const workersModule = `export class WorkerEntrypoint {
  constructor(ctx, env) {
    this.ctx = ctx;
    this.env = env;
  }
}
Object.defineProperty(WorkerEntrypoint.prototype, Symbol.for("bulkhead.entrypoint"), { value: true });
`

func hostModule(spec string) bool { return spec == "cloudflare:workers" }

func loadHost(spec string) (api.OnLoadResult, error) {
	if !hostModule(spec) {
		return api.OnLoadResult{}, fmt.Errorf("BUG: no module %q of the host", spec)
	}
	text := workersModule
	return api.OnLoadResult{Contents: &text, Loader: api.LoaderJS}, nil
}
