// Package follower hands what is appended to streams on to somebody else, who may be slow, or away for a day: a webhook,
// a copy on another machine.
//
//	f, err := follower.Open(ctx, follower.Options{
//		Manager: manager, Streams: "jobs/*", Path: filepath.Join(dir, "jobs.cursor"), Deliver: deliver,
//	})
//	if err != nil {
//		return err
//	}
//	return f.Run(ctx)
//
// What it promises: each event that is appended from Open on to a stream that it is for is handed over at least once,
// whole, and behind the events of its stream that stand before it, also over kill -9 and the loss of power. An event is
// handed over again where its delivery failed, or the process ended before that was noted. Events that are dropped, or
// whose stream is deleted, before they could be handed over are not: it is for retention to keep what is waited for.
//
// What is delivered is noted in one file, the cursor, of a line for each stream that there is:
//
//	{"cursor":"durable-streams 1","crc32c":"…"}
//	{"stream":"jobs/7","life":2,"next":"0000000000000041","crc32c":"…"}
//	{"stream":"jobs/5","deleted":true,"crc32c":"…"}
//
// A later line of a stream takes the place of one before. Lines are added behind each delivery, without a sync: a
// loss of them hands events over again. Only a stream whose deletion is to be handed over is noted durably before its
// first events are. When the file has twice the lines that it needs, and some thousands more, it is
// written anew, synced and renamed. The last member is the CRC-32C of the line's bytes before it; a line that is not as
// it was is passed over, which hands events over again.
//
// While all is delivered it costs a look a second at whether something was appended, and appends cost the streams that it
// is for a note of the name. Nothing is kept in memory of what waits but the streams' names and the batch that is being
// tried: events are read again from the storage. At the start it looks at each stream once, in the background; the very
// first time before Open returns, as that is where each stream's events begin.
package follower
