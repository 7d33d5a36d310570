using Workerd = import "/workerd/workerd.capnp";

# The same worker.js that bulkhead serves, on workerd's own defaults.
const config :Workerd.Config = (
  services = [ (name = "main", worker = .hello) ],
  sockets = [ ( name = "http", address = "127.0.0.1:0", http = (), service = "main" ) ],
);

const hello :Workerd.Worker = (
  modules = [ (name = "worker.js", esModule = embed "../workloads/hello/worker.js") ],
  compatibilityDate = "2026-01-01",
);
