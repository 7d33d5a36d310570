// fetch (https://fetch.spec.whatwg.org/#fetch-method). What it takes to be answered is in subrequest.js.

const FETCH_BIT = 0x80000000; // of the ids of subrequests, which share handlers with invocations

const { fetch } = { fetch(input, init = undefined) {
  try {
    needArgs("fetch", arguments.length, 1);
    const request = new Request(input, init);
    const state = requestState(request);
    if (state.follow !== undefined) {
      const follow = eventsUnit.get().signalState(state.follow);
      if (follow.aborted) return PromiseReject(follow.reason);
    }
    return fetchUnit.get().subrequest(state);
  } catch (error) {
    return PromiseReject(error);
  }
} };
