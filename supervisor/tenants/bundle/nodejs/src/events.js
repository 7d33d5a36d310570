// node:events, of the npm package.

import EventEmitter from "events/";

const { once, listenerCount, defaultMaxListeners } = EventEmitter;
EventEmitter.getEventListeners = (emitter, name) => emitter.listeners(name);
EventEmitter.setMaxListeners = (n, ...emitters) => {
  for (const e of emitters) e.setMaxListeners?.(n); // an EventTarget has no such limit here
};
const { getEventListeners, setMaxListeners } = EventEmitter;

export { EventEmitter, once, listenerCount, defaultMaxListeners, getEventListeners, setMaxListeners };
export default EventEmitter;
