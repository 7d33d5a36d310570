// fetch (https://fetch.spec.whatwg.org/#fetch-method). What it takes to be answered is in subrequest.js.

const FETCH_BIT = 0x80000000; // of the ids of subrequests, which share handlers with invocations

// cancelUnsent tells the stream of a request's body that nobody will read it
// (https://fetch.spec.whatwg.org/#abort-fetch).
const cancelUnsent = (b, reason) => {
  if (b === null || b.stream === undefined) return;
  const s = bodyStreamState(b);
  if (s.reader === undefined && s.state === streamsUnit.get().READABLE) markHandled(streamsUnit.get().readableStreamCancel(s, reason));
};

const { fetch } = { fetch(input, init = undefined) {
  try {
    needArgs("fetch", arguments.length, 1);
    const request = new Request(input, init);
    const state = requestState(request);
    if (state.follow !== undefined) {
      const follow = eventsUnit.get().signalState(state.follow);
      if (follow.aborted) {
        cancelUnsent(state.body, follow.reason);
        return PromiseReject(follow.reason);
      }
    }
    return fetchUnit.get().subrequest(state);
  } catch (error) {
    return PromiseReject(error);
  }
} };
