// node:internal/env is what node:process (supervisor/tenants/bundle/nodejs) has of the runtime: the variables,
// undefined until they have come. They come when the modules have been evaluated.

return { __proto__: null, vars: () => env };
