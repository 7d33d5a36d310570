// greeter: a worker that others call. See examples/front.
import { WorkerEntrypoint } from "cloudflare:workers";

/** Called by name: arguments and results are copied between the two processes. */
export class Greetings extends WorkerEntrypoint {
  greet(name, languages) {
    const words = { en: "Hello", de: "Hallo", fr: "Bonjour", sv: "Hej" };
    return languages.map((l) => {
      if (!(l in words)) throw new RangeError(`I speak no ${l}.`);
      return `${words[l]}, ${name}!`;
    });
  }
}

export default {
  async fetch(request) {
    return new Response(`${request.method} ${new URL(request.url).pathname}: ${await request.text()}\n`);
  },
};
