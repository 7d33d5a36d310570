@0xb4c5a1d09e6f7321;
# The data channel: what flows between gateway and shard while requests run.
#
# Framing: each frame is one Cap'n Proto message of exactly one segment in the standard
# stream framing (Cap'n Proto encoding spec, "Serialization Over a Stream"): four zero
# bytes, the segment's size in words as a little-endian UInt32, the segment. Frames are
# written in batches; a reader may see any number of them in one read(2).
#
# The gateway trusts nothing here: each frame from a shard is bounded by ipc.Limits and
# checked against the state of that very stream; a breach kills the shard.

using Go = import "/go.capnp";
$Go.package("gen");
$Go.import("bulkhead/schema/gen");

using Done = import "outcome.capnp".Done;

struct Frame {
  stream @0 :UInt64;
  # Chosen by the gateway, unique over the life of the channel, never reused. Zero for ping and pong.

  union {
    open @1 :Open;
    # gateway → shard: start an invocation.
    head @2 :Head;
    # shard → gateway: the response's status and headers. At most once per stream.
    chunk @3 :Data;
    # both ways: body bytes, at most ipc.MaxChunkBytes, within the receiver's window.
    end @4 :Void;
    # both ways: this direction's body is complete.
    abort @5 :Abort;
    # both ways: this direction's body will not be completed. From the gateway: the client left.
    window @6 :UInt32;
    # both ways: the receiver of a body can take this many bytes more.
    done @7 :Done;
    # shard → gateway: the invocation is over, waitUntil included. Nothing follows on this stream.
    ping @8 :UInt64;
    # gateway → shard: answer with the same number. Read by the poller, not by an isolate.
    pong @9 :UInt64;
    # shard → gateway: the answer.
    overdue @10 :Overdue;
    # shard → gateway: a turn has used up its CPU and cannot be stopped from inside. The gateway
    # kills the process. Frame.stream is the invocation's stream, zero if the turn belongs to none.
    fetch @11 :Fetch;
    # shard → gateway: start a subrequest. Frame.stream names it: chosen by the shard with the
    # highest bit set, rising, never reused. Then as for other streams with the roles exchanged:
    # the shard sends the request's body, the gateway head, chunk, end, abort; window both ways.
    # The gateway's last word is end, an abort with reason failed, or a head without a streamed
    # body. The shard's is an abort with reason clientGone: it wants no more of it, or has had it
    # all. It sends exactly one, at any time, and nothing after it; the done frame of the parent
    # stands for those of all its subrequests. Until then a subrequest counts against the limits.
    message @12 :Message;
    # both ways, on a stream whose head had status 101: part of a WebSocket message, or a close. It takes
    # len(data) + 64 bytes of the receiver's window. After a close this direction says nothing more. The
    # worker's done follows when both sides have closed.
  }
}

struct Open {
  tenant @0 :UInt32;
  # Handle given in Shard.load on the control channel of this shard.
  method @1 :Text;
  # RFC 9110 token, upper case for the standard ones.
  url @2 :Text;
  # Absolute, as the client named it: scheme://host/path?query.
  headers @3 :Data;
  # "name\nvalue\n" repeated, names in lower case. No NUL, CR or LF within either.
  body @4 :Data;
  # The first bytes of the request body, or all of them; see bodyMode.
  bodyMode @5 :BodyMode;
  requestId @6 :Text;
  # What the client sees as bulkhead-request-id. Opaque.
  receivedMs @7 :Float64;
  # Wall clock in ms since 1970 at which the gateway had the head: JS time starts here.
  attempt @8 :UInt8;
  # 1 for the first try, 2 for a replay after a shard's death.
  event @9 :Event;
  # What the tenant's code is asked to handle.
  entrypoint @10 :Text;
  # Name of the export that handles it; empty: the default one.
  name @11 :Text;
  # Of a call: the method's name. Of a scheduled event: the cron expression.
  upgrade @12 :Bool;
  # The client asks for a WebSocket: the head may have status 101.
  carrier @13 :UInt64;
  # Of a function event: the subrequest of this shard whose arguments brought the function. It may have just ended.
  function @14 :UInt16;
  # Of a function event: its number among those, from 1, as the shard wrote it there. The gateway does not judge it.
  props @15 :Text;
  # Of what comes by a service binding: JSON of the caller's configuration for it, `ctx.props`. Empty: none.
}

struct Message {
  opcode @0 :UInt8;
  # As in RFC 6455 §5.2: 1 text, 2 binary, 8 close. The parts of one message have the same.
  last @1 :Bool;
  # The message is complete. A close has one part.
  data @2 :Data;
  # At most ipc.MaxChunkBytes; parts but the last are not empty. Text is UTF-8 as a whole. Of a close: empty,
  # or the code, two bytes, big endian, and the reason (RFC 6455 §5.5.1).
}

enum Event {
  fetch @0;
  call @1;
  # An RPC method of an entrypoint. The body is its arguments, the response's body its result.
  scheduled @2;
  # A cron expression has come due. The last part of the URL's path is the time it was due at, in ms since 1970.
  tail @3;
  # The body is a JSON array of what other tenants' invocations logged and how they ended.
  function @4;
  # A function that was in the arguments of a call, called by whom it was given to. Bodies as of a call.
}

enum BodyMode {
  none @0;
  # There is no body: `request.body` is null.
  whole @1;
  # `body` is all of it.
  streamed @2;
  # `body` is the beginning (perhaps empty); chunk frames follow, ended by end or abort.
}

struct Head {
  status @0 :UInt16;
  # 200 to 599, or 101: a WebSocket begins. Only where Open.upgrade is set, without a body; message frames
  # take the place of chunk, end and abort then, both ways.
  headers @1 :Data;
  # As in Open. Hop-by-hop fields are dropped by the gateway.
  body @2 :Data;
  bodyMode @3 :BodyMode;
  # As in Open, for the response.

  url @4 :Text;
  # Only in the answer to a subrequest, like all that follows: the URL that answered, after redirects.
  redirected @5 :Bool;
  # It is not the first one asked.
  statusText @6 :Text;
  # The reason phrase as the upstream sent it; empty over HTTP/2.
}

struct Abort {
  reason @0 :Reason;
  message @1 :Text;
  # For people, at most 1 KiB; never parsed.

  enum Reason {
    clientGone @0;
    # The client closed its connection or reset the stream. From a shard, of a subrequest: see Frame.fetch.
    failed @1;
    # The body's source failed: a stream errored in JS, or the client sent a malformed body.
    deadline @2;
    # The gateway's own deadline for this stream passed.
    refused @3;
    # The receiver wants no more of the body. The sender stops; the rest of the stream goes on.
  }
}

struct Overdue {
  tenant @0 :UInt32;
  # Handle of the tenant whose turn it is.
  cpuMicros @1 :UInt64;
  # CPU of the turn so far, µs.
  limitMicros @2 :UInt64;
  # What it was allowed, µs.
}

struct Fetch {
  parent @0 :UInt64;
  # The stream of the invocation on whose behalf it is made; its done was not sent yet.
  method @1 :Text;
  # As in Open, but for CONNECT, TRACE and TRACK.
  url @2 :Text;
  # Absolute, http or https, no fragment, no credentials; printable ASCII.
  headers @3 :Data;
  # As in Open. The gateway sets host, framing and hop-by-hop fields itself and drops them here.
  body @4 :Data;
  bodyMode @5 :BodyMode;
  # As in Open.
  redirect @6 :Redirect;

  enum Redirect {
    follow @0;
    # The gateway follows up to 20, each judged as if it had been asked for directly.
    error @1;
    # A redirect is a failure.
    manual @2;
    # A redirect is the answer.
  }

  binding @7 :UInt16;
  # 0: it goes out. Else the number of one of the tenant's service bindings, as EnvVar.service gave it:
  # the tenant bound to handles it. 65535: the tenant's own caches. Then the method is GET (match), PUT (put)
  # or DELETE, and the first field of headers, "cache", says whose: see supervisor/cache. The answer's
  # url is one of the words there, and its body and fields those of the response that was kept. 65534: a function that
  # the call which `parent` answers brought in its arguments; see `function`.
  call @8 :Text;
  # Only with a binding: the RPC method asked for, an identifier of at most 128 bytes; `body` is its
  # arguments. Empty: a fetch event.
  upgrade @9 :Bool;
  # A WebSocket is asked for, of an upstream: the answer's head may have status 101, and message frames follow,
  # as in Frame.message. The gateway's last word is then a close or an abort with reason failed.
  function @10 :UInt16;
  # Of binding 65534 alone: the function's number, from 1, as it stood in the arguments; `body` is what it is called with.
  # It lives as long as the call that brought it.
}
