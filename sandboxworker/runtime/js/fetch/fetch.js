// fetch (https://fetch.spec.whatwg.org/#fetch-method).

// fetchOutbound performs a subrequest. There is no way out of this host yet: its policy allows none.
// An implementation starts an operation (startOp) and makes a Response of its answer.
const fetchOutbound = (state) => {
  void state;
  return PromiseReject(new TypeError("fetch failed: outbound fetch is not enabled by this host's policy. Ask its operator."));
};

function fetch(input, init = undefined) {
  try {
    needArgs("fetch", arguments.length, 1);
    const request = new Request(input, init);
    const state = requestState(request);
    if (state.follow !== undefined) {
      const follow = eventsUnit.get().signalState(state.follow);
      if (follow.aborted) return PromiseReject(follow.reason);
    }
    return fetchOutbound(state);
  } catch (error) {
    return PromiseReject(error);
  }
}
