// Package streamhttp serves streams over HTTP and server-sent events, and has the client that speaks it: Layer 5.
// Here and nowhere else in the library net/http is imported.
//
//	POST   /streams/NAME          {"data": VALUE}, or one value a line as application/x-ndjson; answers 201 and the events
//	GET    /streams/NAME          text/event-stream: from ?offset= on, or from now, what there is and what comes
//	GET    /streams/NAME/events   from ?offset= on what there is; as application/x-ndjson, one event a line
//	HEAD   /streams/NAME          the tail, as ETag and Stream-Next-Offset
//	DELETE /streams/NAME
//	GET    /streams               names; as text/event-stream, what comes on all streams
//	GET    /healthz               who this is
//	GET    /readyz                whether appends can be made, else 503 and why not
//	POST   /session               with Access: a cookie for pages that can send no header; DELETE takes it away
//
// NAME is percent-encoded as one segment of a path, "." and ".." included.
//
// # Serving
//
// [NewHandler] has the routes and [NewServer] a server with the limits that they need. A handler without [Access]
// trusts whoever reaches it, but not web pages: it refuses requests for a Host that it was not told of, so that no
// page can reach it by a name of its own, and writes from another origin that is not allowed. With Access, which
// package tokens has, each request needs the right to read, write or admin on its stream, lists show what may be
// read, and what is being read ends when the right does; only /healthz and /readyz are for everybody. Bodies are
// bounded in size and time, and a subscriber that takes no byte for 30 s is cut off; it costs others nothing until
// then.
//
// Who has closed its half of the connection is answered; what is left of a body that was answered early is read, for
// 5 s. A read promises in Stream-Next-Offset how far it goes, where that is known when it begins, and one that breaks
// off ends with a reset of the connection, for over HTTP/1.0 an end is no error.
//
// # Event streams
//
// A subscription opens with the client's retry interval and an event "position": its id is the position before the
// first event to come, its data the tail. Only where the request names an offset or a last event, and there are
// events behind it, these come at once. Each event is an id, its offset, and its data, the event as JSON on one line;
// where a filter left the last ones out, another position moves the id. What is ready together is flushed together;
// ": ping" breaks a silence of 15 s. A Last-Event-ID resumes behind that event. When the stream does not have it, as
// the stream was deleted and made again, the answer is 410, which ends a browser's attempts. A subscription to a
// stream that is deleted ends with ": deleted".
//
// # The client
//
// A [Remote] is a streamlib.Stream: what is written for streams works with those of a server. Errors arrive as they
// were: the sentinels of streamlib, *streamlib.HookError, *streamlib.ConflictError, *streamlib.GoneError, or else
// *[Error].
//
// # Where things are
//
//	handler.go, parameters.go  the routes and what they share; queries
//	append.go, envelope.go     appends and their bodies
//	read.go, sse.go            answers with events; subscriptions, pings among them
//	errors.go                  which error is which status, for the handler and the client
//	access.go, origins.go      who may do what, and pages of other origins
//	client.go, remote.go       the client, and a stream of its server
//	follow.go                  subscriptions of the client
//	server.go, conn_*.go       limits of a server, and how its connections end
package streamhttp
