// Package streamlib keeps event streams: named, ordered, durable logs of JSON values.
//
//	storage, err := disk.Open(dir, disk.Options{})
//	if err != nil {
//		return err
//	}
//	defer storage.Close()
//	orders := streamlib.NewManager(storage, streamlib.Active, streamlib.Options{}).Stream("orders")
//	if _, err := orders.Append(ctx, streamlib.Batch{Data: streamlib.JSON(`{"type":"paid"}`)}); err != nil {
//		return err
//	}
//	for events, err := range orders.Subscribe(ctx, streamlib.Beginning) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(string(events[0].Data()))
//	}
//
// Each layer is written in terms of those below it and of nothing else; a test reads the files and says so:
//
//	Layer 5  streamhttp  HTTP and SSE over a Manager, and the client that speaks them
//	Layer 4  Manager     streams by name: made on first use, dropped when idle
//	Layer 3  Factory     makes a stream: Plain, WithHooks, Validated, EmbryonicAgent; Active is used
//	Layer 2  WithHooks   hooks before an append, which may refuse it, and after it
//	Layer 1  Stream      offsets and times, group commit, keys, conditions, subscriptions
//	Layer 0  Storage     records under a name: packages disk and memory
//
// Package streamtest has what [Storage] and [Stream] promise as tests. In short:
//
//   - What an append returned is durable, contiguous and in order; a batch is there whole or not at all.
//   - Nobody sees an event before it is durable. A subscription has no gap and no repeat, or ends with an error.
//   - An append with a key takes place once. Of racing conditional appends one wins.
//   - After one of this package's errors nothing was stored; after any other, repeat the append with its key.
//
// It is no consensus, no query language and no broker: one process has the storage. It retries nothing.
package streamlib
