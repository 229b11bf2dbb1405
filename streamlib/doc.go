// Package streamlib keeps event streams: named, ordered, durable logs of JSON values that are appended to, read by
// offset and followed live.
//
//	storage, err := disk.Open(dir, disk.Options{})
//	if err != nil {
//		return err
//	}
//	defer storage.Close()
//	streams := streamlib.NewManager(storage, streamlib.Active, streamlib.Options{})
//	orders := streams.Stream("orders")
//	if _, err := orders.Append(ctx, streamlib.Batch{Data: streamlib.JSON(`{"type":"paid","amount":12.50}`)}); err != nil {
//		return err
//	}
//	for events, err := range orders.Subscribe(ctx, streamlib.Beginning) {
//		if err != nil {
//			return err
//		}
//		for _, event := range events {
//			fmt.Println(event.Offset, string(event.Data()))
//		}
//	}
//
// # The onion
//
// Each layer is written in terms of those further in and of nothing else; a test reads the files and says so.
//
//	Layer 5  streamhttp  HTTP and SSE over a Manager, and the client that speaks them
//	Layer 4  Manager     streams by name: made on first use, dropped when idle
//	Layer 3  Factory     makes a stream: Plain, WithHooks, Validated, EmbryonicAgent; Active is the one that is used
//	Layer 2  WithHooks   hooks before an append, which may refuse it, and after it
//	Layer 1  Stream      offsets and times, group commit, keys, conditions, subscriptions
//	Layer 0  Storage     records under a name: packages disk and memory
//	         Event       what all of them handle, encoded once when it is appended
//
// # What is guaranteed
//
//   - An append that returned is as durable as its storage makes it: with package disk it survives the loss of power.
//   - A stream's offsets are contiguous from 0. An append sent after another was acknowledged stands behind it; times never go back.
//   - A batch is there whole or not at all.
//   - Nobody sees an event before it is durable.
//   - A subscription yields history and then what is appended with no gap and no repeat, or ends with an error. A slow one costs
//     itself alone: it is a cursor, without a queue and without a goroutine.
//   - Data is kept as the sender's bytes less white space between tokens.
//   - An append with a key takes place once, however often it is sent, while its events are among the stream's last 10,000
//     or the last 64 MiB of them. A condition on the tail is decided inside the commit: of racing writers one wins.
//   - An append that fails with one of this package's errors has stored nothing. After any other error the outcome is open, and
//     repeating it with its key is safe.
//
// Package streamtest has these promises as tests for any Storage and any Stream.
//
// # What it is not
//
// It is no consensus, no query language and no broker: one process has the storage, and whoever wants more copies
// reads it. It retries nothing, decodes no data, and starts no goroutine but those that bound the time of hooks and
// the one in which package disk makes checkpoints.
package streamlib
