// Package streamhttp serves streams over HTTP and server-sent events, and has the client that speaks it: Layer 5.
// Here and nowhere else in the library net/http is imported.
//
//	POST   /streams/NAME          {"data": VALUE}, or one value a line as application/x-ndjson; answers 201 and the events
//	                              with Stream-Closed: true, the last ones, or without a body none, and then 204
//	GET    /streams/NAME          text/event-stream: from ?offset= or ?since= on, or from now, what there is and what comes
//	GET    /streams/NAME/events   from ?offset= or ?since= on what there is; as application/x-ndjson, one event a line
//	GET    /streams/NAME/times    how many events were created when
//	DELETE /streams/NAME/events   those before ?before=, an offset or now
//	HEAD   /streams/NAME          the tail, as ETag and Stream-Next-Offset
//	DELETE /streams/NAME
//	GET    /streams               names; as text/event-stream, what comes on all streams, or with details how they change
//	GET    /export                all streams, those of ?prefix= or ?name= alone, as package transfer has them
//	POST   /import                adds what was exported; answers with how much was new
//	GET    /healthz               who this is
//	GET    /readyz                whether appends can be made, else 503 and why not
//	GET    /metrics               with Metrics: figures for Prometheus
//	GET    /                      with Page: a page for browsers, whose files are below /page/
//	POST   /session               with Access: a cookie for pages that can send no header; DELETE takes it away
//
// NAME is percent-encoded as one segment of a path, "." and ".." included. In its place /stream?name=NAME,
// /stream/events?name=NAME and /stream/times?name=NAME are for browsers, which can send those two in no path, and for
// who is behind a proxy that decodes paths.
//
// # Serving
//
// [NewHandler] has the routes and [NewServer] a server with the limits that they need. A handler without [Access]
// trusts whoever reaches it, but not web pages: it refuses requests for a Host that it was not told of, so that no
// page can reach it by a name of its own, and writes from another origin that is not allowed. With Access, which
// package tokens has, each request needs the right to read, write or admin on its stream, lists show what may be read,
// and what is being read ends when the right does; export and import need the right to admin; only /healthz, /readyz and
// the page are for everybody. Bodies are bounded in size and time, and a subscriber that takes no byte for 30 s is cut
// off; it costs others nothing until then. What requests, and answers on their way, hold together is bounded by the
// manager's budget: a request that finds no room in it for a second is answered 503, and a reader waits for its turn.
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
// where a filter left the last ones out, another position moves the id. What is ready together is flushed together.
// A comment ": tail" and the tail's offset stands where everything before that was sent: once, where catching up ends,
// and after each silence of 15 s. Where the tail is not known, as from beyond it and of many streams, ": ping" breaks
// the silence. With ?until=tail the response ends where catching up does.
//
// A subscription to all streams with details has, for each time that some of them changed, data as a list's, with
// those alone; "deleted" is in what is there no more. It comes at once, and then at most four times a second, so it
// costs what the number of streams that change costs, and not what is appended to them. Nothing tells what changed
// before: who wants to know all subscribes first, and then asks for the list.
//
// A Last-Event-ID resumes behind that event. When the stream does not have it, as the stream was deleted and made
// again, the answer is 410, which ends a browser's attempts; so does the 204 that answers it where ?until=tail leaves
// nothing to send. A subscription to a stream that is deleted ends with ": deleted".
//
// # The end of a stream
//
// What closes a stream is one with the data that it comes with, and final: later data is answered 409. Readers are told
// of it behind the last event, and not before: "Stream-Closed: true" is in the answer to the append that closes, to
// HEAD, and to a read that goes up to the end, and a subscription ends with an event "end" that has the tail in its data
// and no id. One that begins at the end, as that of a browser that connects again, is answered 204, which stops it
// (server-sent events, in html.spec.whatwg.org). A subscription to all streams goes on, and is not told.
//
// # What was dropped
//
// Of a stream that was trimmed HEAD, a list with details and a read tell in Stream-First-Offset, or as "first", where
// the events begin that are kept. There begins what is read from -1 or without an offset, and ?last= goes back no
// further. An offset, or a Last-Event-ID, from which on a reader would miss events, is answered 410 with "first"; a
// subscription that was slower than what trims the stream breaks off, and is answered so when it comes again.
//
// # Lives
//
// A stream that was deleted and made again is another. So the ids of its events and its ETag are OFFSET-LIFE, as in
// "0000000000000003-2", unless its life (see streamlib.State) is 0; everywhere else an offset is a number. Who sends
// back what he was sent is told when it is of another life, whatever the tail is by now: a Last-Event-ID with 410,
// If-Match with 412 and "deleted". A number that is not written as an id is, as a person does it, is of the stream that
// there is: If-Match: "3", ?last-event-id=3, and ?offset= always. In the header Last-Event-ID any number without a life
// is of life 0, for only clients send that, and some write numbers in their own way. What has no events has no life: its
// ETag tells none, and the condition that it has none holds in all. If-Match: "*-2" is a condition on the life alone.
//
// # The client
//
// A [Remote] is a streamlib.Stream: what is written for streams works with those of a server. Errors arrive as they
// were: the sentinels of streamlib, *streamlib.HookError, *streamlib.ClosedError, *streamlib.ConflictError,
// *streamlib.GoneError, or else *[Error]. Of a server that does not answer it is *[NoAnswerError].
//
// # Where things are
//
//	handler.go, parameters.go  the routes and what they share; queries
//	append.go, envelope.go     appends and their bodies
//	intake.go                  and what these take of the memory that there is
//	list.go                    lists of streams
//	read.go, sse.go            answers with events; those that go on, pings among them
//	subscription.go            where a subscription begins, and what it follows
//	changes.go                 which streams change, and when events were created
//	errors.go                  which error is which status, for the handler and the client
//	transfer.go                export and import
//	access.go, origins.go      who may do what, and pages of other origins
//	client.go, remote.go       the client, and a stream of its server
//	noanswer.go                servers that are silent or not there
//	follow.go                  subscriptions of the client
//	server.go, conn_*.go       limits of a server, and how its connections end
//	h2.go                      deadlines over HTTP/2
package streamhttp
