// Package retention drops what is kept for long enough: the oldest events of streams, and streams that nobody
// appends to any more.
//
//	retain, err := retention.Retain("logs/*=7d,1GB", "*=100000")
//	if err != nil {
//		return err
//	}
//	sweeper := retention.Sweeper{Manager: manager, Retain: retain}
//	sweeper.Run(ctx)
//
// What it promises: each event that it drops was older than its rule says, or beyond the number or the size. Each
// stream that it deletes got no append for as long as its rule says, up to the moment of the deletion: that is
// decided inside the commit. Nothing else goes. What is over a bound begins to go within 10 seconds, and within a
// tenth of a second where a stream comes to twice its bound.
//
// Times are those of the clock that the events have theirs from. Where it is set back, what would have gone goes
// later. Where it is set forward, what is too old by it goes.
//
// A [Keeper], such as package protocol has for streams with a TTL, has rules of its own beside these. Streams that
// others need, as forks do, keep what they have, and are looked at again when that is over.
//
// What it costs depends on the streams that change and on what there is to drop: only at the start it looks at
// every stream that has a rule. It works on one stream at a time, and where there is much to do about half of the
// time: of thousands of streams that are over their bounds at once, the last ones wait longer. Of a stream whose
// rule has an age it keeps the name.
package retention
