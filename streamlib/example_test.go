package streamlib_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/memory"
)

func Example() {
	dir, err := os.MkdirTemp("", "streams")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	example := func() error {
		storage, err := disk.Open(dir, disk.Options{})
		if err != nil {
			return err
		}
		defer storage.Close()
		orders := streamlib.NewManager(storage, streamlib.Active, streamlib.Options{}).Stream("orders")
		if _, err := orders.Append(ctx, streamlib.Batch{Data: streamlib.JSON(`{"type":"paid"}`)}); err != nil {
			return err
		}
		for events, err := range orders.Subscribe(ctx, streamlib.Beginning) {
			if err != nil {
				return err
			}
			fmt.Println(string(events[0].Data()))
			cancel() // it would wait for more
		}
		return nil
	}
	fmt.Println(example())
	// Output:
	// {"type":"paid"}
	// subscribe "orders": context canceled
}

// noon is a clock for examples.
func noon() time.Time { return time.Date(2024, 1, 8, 12, 0, 0, 0, time.UTC) }

func ExampleNewManager() {
	streams := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{Now: noon})
	receipt, err := streams.Stream("orders").Append(context.Background(),
		streamlib.Batch{Data: streamlib.JSON(`{"id": 1}`, `{"id": 2}`)})
	if err != nil {
		log.Fatal(err)
	}
	for _, event := range receipt.Events {
		fmt.Println(event)
	}
	// Output:
	// {"offset":"0000000000000000","eventStreamId":"orders","data":{"id":1},"createdAt":"2024-01-08T12:00:00.000Z"}
	// {"offset":"0000000000000001","eventStreamId":"orders","data":{"id":2},"createdAt":"2024-01-08T12:00:00.000Z"}
}

func ExampleSince() {
	ctx, now := context.Background(), noon()
	streams := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{Now: func() time.Time { return now }})
	orders := streams.Stream("orders")
	for _, data := range []string{`"at noon"`, `"at one"`, `"at two"`} {
		if _, err := orders.Append(ctx, streamlib.Batch{Data: streamlib.JSON(data)}); err != nil {
			log.Fatal(err)
		}
		now = now.Add(time.Hour)
	}
	from, err := streamlib.Since(ctx, orders, noon().Add(30*time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	for events, err := range orders.Read(ctx, from, streamlib.MaxOffset) {
		if err != nil {
			log.Fatal(err)
		}
		for _, event := range events {
			fmt.Println(string(event.Data()))
		}
	}
	// Output:
	// "at one"
	// "at two"
}

func ExampleManager_List() {
	ctx := context.Background()
	streams := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	for _, name := range []string{"users/2", "orders", "users/1", "users/3"} {
		if _, err := streams.Stream(name).Append(ctx, streamlib.Batch{Data: streamlib.JSON("1")}); err != nil {
			log.Fatal(err)
		}
	}
	first, _ := streams.List(ctx, "users/", "", 2)
	rest, _ := streams.List(ctx, "users/", first[1], 2)
	fmt.Println(first, rest)
	// Output: [users/1 users/2] [users/3]
}

func ExampleManager_Subscribe() {
	ctx := context.Background()
	streams := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	all := streams.Subscribe(ctx, "users/") // what comes from now on
	for _, name := range []string{"users/2", "orders", "users/1"} {
		if _, err := streams.Stream(name).Append(ctx, streamlib.Batch{Data: streamlib.JSON("1")}); err != nil {
			log.Fatal(err)
		}
	}
	for events, err := range all {
		if err != nil {
			log.Fatal(err)
		}
		for _, event := range events {
			fmt.Println(event.Stream(), event.Offset)
		}
		break
	}
	// Output:
	// users/2 0000000000000000
	// users/1 0000000000000000
}

// An append whose answer was lost is sent again with its key.
func ExampleBatch_key() {
	orders := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}).Stream("orders")
	for _, data := range []string{`{"id":1}`, `{"id":1}`, `{"id":2}`} {
		receipt, err := orders.Append(context.Background(), streamlib.Batch{Data: streamlib.JSON(data), Key: "order-1"})
		switch {
		case errors.Is(err, streamlib.ErrKeyReused):
			fmt.Println(err)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println(receipt.Events[0].Offset, receipt.Repeated)
		}
	}
	// Output:
	// 0000000000000000 false
	// 0000000000000000 true
	// append "orders": key was used with other data: "order-1"
}

// A writer that decides on what it has read appends only where nobody was faster.
func ExampleBatch_condition() {
	ctx := context.Background()
	orders := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}).Stream("orders")
	tail := streamlib.Offset(0)
	for _, writer := range []string{`"first"`, `"second"`} {
		_, err := orders.Append(ctx, streamlib.Batch{Data: streamlib.JSON(writer), IfTail: &tail})
		if conflict, ok := errors.AsType[*streamlib.ConflictError](err); ok {
			fmt.Println(writer, "reads up to", conflict.Tail, "and tries again")
		} else {
			fmt.Println(writer, "appended")
		}
	}
	// Output:
	// "first" appended
	// "second" reads up to 0000000000000001 and tries again
}

func ExampleStream_read() {
	ctx := context.Background()
	orders := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}).Stream("orders")
	if _, err := orders.Append(ctx, streamlib.Batch{Data: streamlib.JSON("10", "11", "12", "13")}); err != nil {
		log.Fatal(err)
	}
	for events, err := range orders.Read(ctx, 1, 3) {
		if err != nil {
			log.Fatal(err)
		}
		for _, event := range events {
			fmt.Println(event.Offset, string(event.Data()))
		}
	}
	// Output:
	// 0000000000000001 11
	// 0000000000000002 12
}

func ExampleWithHooks() {
	hooks := streamlib.Hooks{
		Before: []streamlib.BeforeHook{{ID: "no-strings",
			Run: func(ctx context.Context, name string, data json.RawMessage) error {
				if data[0] == '"' {
					return errors.New("a string is no order")
				}
				return nil
			}}},
		After: []streamlib.AfterHook{{ID: "print", Run: func(ctx context.Context, name string, event streamlib.Event) error {
			fmt.Println("appended to", name, "at", event.Offset)
			return nil
		}}},
	}
	orders := streamlib.WithHooks(streamlib.Plain("orders", memory.New(), streamlib.Options{}), hooks)
	for _, data := range []string{`"two"`, `{"n":2}`} {
		_, err := orders.Append(context.Background(), streamlib.Batch{Data: streamlib.JSON(data)})
		if veto, ok := errors.AsType[*streamlib.HookError](err); ok {
			fmt.Println(veto.HookID, "says", veto.Message)
		}
	}
	// Output:
	// no-strings says a string is no order
	// appended to orders at 0000000000000000
}

func ExampleFactory_WithHooks() {
	closed := streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "office-hours",
		Run: func(context.Context, string, json.RawMessage) error {
			return errors.New("come back tomorrow")
		}}}}
	streams := streamlib.NewManager(memory.New(), streamlib.Factory(streamlib.Plain).WithHooks(closed),
		streamlib.Options{})
	_, err := streams.Stream("orders").Append(context.Background(), streamlib.Batch{Data: streamlib.JSON("1")})
	fmt.Println(err)
	// Output: hook office-hours: come back tomorrow
}

func ExampleValidated() {
	streams := streamlib.NewManager(memory.New(), streamlib.Validated, streamlib.Options{})
	_, err := streams.Stream("orders").Append(context.Background(),
		streamlib.Batch{Data: streamlib.JSON(`{"type":"paid"}`)})
	fmt.Println(err)
	// Output: hook validate-type: data must have a _type member that is a string
}

func ExampleEmbryonicAgent() {
	streams := streamlib.NewManager(memory.New(), streamlib.EmbryonicAgent, streamlib.Options{})
	for _, data := range []string{`{"_type":"paid"}`, `{"_type":"agent:said"}`} {
		_, err := streams.Stream("orders").Append(context.Background(), streamlib.Batch{Data: streamlib.JSON(data)})
		fmt.Println(err)
	}
	// Output:
	// hook validate-agent-event: data's _type must begin with "agent:"
	// <nil>
}

func ExampleParseOffset() {
	for _, s := range []string{"-1", "now", "42", "0000000000000042", "1.5"} {
		o, err := streamlib.ParseOffset(s)
		fmt.Println(int64(o), o, err)
	}
	// Output:
	// -1 -1 <nil>
	// -2 now <nil>
	// 42 0000000000000042 <nil>
	// 42 0000000000000042 <nil>
	// 0 0000000000000000 invalid offset "1.5": it is -1, now, or a number of at most 9007199254740991
}

func ExampleCheckName() {
	for _, name := range []string{"orders", "../😀", "", "a\nb"} {
		fmt.Println(streamlib.CheckName(name))
	}
	// Output:
	// <nil>
	// <nil>
	// invalid stream name: it is empty
	// invalid stream name "a\nb": it has a control character
}

func ExampleEvent_HasType() {
	ctx := context.Background()
	chat := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}).Stream("chat")
	if _, err := chat.Append(ctx, streamlib.Batch{Data: streamlib.JSON(`{"type":"said"}`, `{"_type":"left"}`,
		`"said"`)}); err != nil {
		log.Fatal(err)
	}
	for events := range chat.Read(ctx, streamlib.Beginning, streamlib.MaxOffset) {
		for _, event := range events {
			fmt.Println(string(event.Data()), event.HasType("said", "left"))
		}
	}
	// Output:
	// {"type":"said"} true
	// {"_type":"left"} true
	// "said" false
}

func ExampleParseRecord() {
	record, err := streamlib.NewRecord(7, "orders", json.RawMessage(`{ "id": 1 }`), noon())
	if err != nil {
		log.Fatal(err)
	}
	event, err := streamlib.ParseRecord(record)
	fmt.Println(event.Offset, event.Stream(), string(event.Data()), event.CreatedAt(), err)
	// Output: 0000000000000007 orders {"id":1} 2024-01-08 12:00:00 +0000 UTC <nil>
}
