// Package protocol serves streams as the Durable Streams protocol has them (PROTOCOL.md of the repository
// durable-streams/durable-streams), for the clients of that: mounted by streamhttp at /v1/stream/NAME, where NAME
// may have slashes, and at /v1/streams/NAME. The native routes have the same streams, and admission, tokens, limits
// and budgets are theirs.
//
//	speaks := protocol.NewHandler(manager, protocol.Config{})
//	handler := streamhttp.NewHandler(manager, streamhttp.Config{Protocol: speaks.Serve})
//	sweeper := retention.Sweeper{Manager: manager, Keeper: speaks} // for what is over
//
// # Where its state is
//
// What the protocol remembers of a stream, such as its content type, its producers and its forks, is the Note of
// its streamlib.State, which is durable in one with the events that it comes with, and which no native route writes
// but an import, for which one needs the right to everything. So bookkeeping takes no offsets, neither readers nor
// hooks see it, no event has to be told from it, and the first use after a start reads a state of at most 48 KiB
// and no events. An append is decided on within the commit: see streamlib.Batch.Decide.
//
// # What the protocol leaves open
//
//   - A native stream is application/json and never expires. A value is a message; of other types a string is its
//     bytes, {"base64":…} is what is no UTF-8 or shorter so, and any other value that came over the native routes
//     is its JSON. The limit for an event counts what is stored.
//   - Offsets are those of the events, 16 digits, in every mode. One beyond the tail is of a stream that was
//     deleted, and 410; so is one of events that were dropped. Every other text is 400. -1, and
//     0000000000000000_0000000000000000, which some clients know, are whatever is kept.
//   - Stream-Seq is compared with the last one of the stream, whoever sent it. The number of bytes of that, a
//     Producer-Id, or any other header that is remembered is at most 1,024, and they are UTF-8.
//   - A note has at most 48 KiB: beyond that, which is some seven hundred producers with short names, those that
//     were not heard from for longest are forgotten. Who was begins a new epoch, as after a restart of its own. A
//     source has forks in at most half of that, some four hundred; another one is 507.
//   - A sliding TTL begins anew when the server starts, for reads are not written down. Where servers share a
//     bucket each knows its own readers alone, and appends. A reader that waits for more uses the stream all the
//     time.
//   - A stream that is over is gone at that moment for who asks, and in the storage within some seconds.
//   - A source that has forks is held: nothing trims or expires it, and native deletion is answered 409. Deleted
//     over the protocol it is closed, and gone when its last fork is. Natively a fork begins where it was forked.
//   - A fork is claimed of its source before it is made, and goes before its source forgets it. So a crash leaves
//     at most a claim of a fork that there is not, as does a native deletion: it is taken back when the source is
//     deleted, at the next start, or within ten minutes.
//   - A long-poll waits 4 s, a response of events ends after 55 s. A read has about 1 MiB.
//   - Bodies are read whole, so Expect and chunks are as in every other request; a Content-Encoding is 415.
//   - There are no subscriptions: below __ds everything is 501.
package protocol
