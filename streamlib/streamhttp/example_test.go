package streamhttp_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// A program that serves the streams of a folder says disk.Open instead of memory.New, and ListenAndServe.
func Example() {
	m := streamlib.NewManager(memory.New(), streamlib.Active, streamlib.Options{})
	server := httptest.NewServer(streamhttp.NewHandler(m, streamhttp.Config{}))
	defer server.Close()

	client := &streamhttp.Client{URL: server.URL}
	orders := client.Stream("orders")
	_, err := orders.Append(context.Background(),
		streamlib.Batch{Data: streamlib.JSON(`{"type":"order","n":1}`, `{"type":"note"}`)})
	if err != nil {
		log.Fatal(err)
	}
	for events, err := range orders.Read(context.Background(), 0, streamlib.MaxOffset) {
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range events {
			fmt.Println(e.Offset, string(e.Data()))
		}
	}
	// Output:
	// 0000000000000000 {"type":"order","n":1}
	// 0000000000000001 {"type":"note"}
}

func ExampleRemote_Follow() {
	client, stop := exampleServer()
	defer stop()
	jobs := client.Stream("jobs")
	for range 3 {
		_, _ = jobs.Append(context.Background(), streamlib.Batch{Data: streamlib.JSON(`{"type":"job"}`, `{"type":"log"}`)})
	}

	// The last two jobs, then those that come; over restarts of the server too.
	n := 0
	for events, err := range jobs.Follow(context.Background(), streamhttp.Follow{Last: 2, Types: []string{"job"}}) {
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range events {
			fmt.Println(e.Offset)
		}
		if n += len(events); n == 2 {
			break
		}
	}
	// Output:
	// 0000000000000002
	// 0000000000000004
}

func ExampleClient_List() {
	client, stop := exampleServer()
	defer stop()
	for _, name := range []string{"user/1", "user/2", "user/3"} {
		_, _ = client.Stream(name).Append(context.Background(), streamlib.Batch{Data: streamlib.JSON("true")})
	}

	for o := (streamhttp.ListOptions{Prefix: "user/", Limit: 2, Details: true}); ; {
		page, err := client.List(context.Background(), o)
		if err != nil {
			log.Fatal(err)
		}
		for _, s := range page.Streams {
			fmt.Println(s.Name, s.Tail)
		}
		if o.After = page.Next; o.After == "" {
			break
		}
	}
	// Output:
	// user/1 0000000000000001
	// user/2 0000000000000001
	// user/3 0000000000000001
}

func exampleServer() (client *streamhttp.Client, stop func()) {
	m := streamlib.NewManager(memory.New(), streamlib.Active, streamlib.Options{})
	server := httptest.NewServer(streamhttp.NewHandler(m, streamhttp.Config{}))
	return &streamhttp.Client{URL: server.URL}, server.Close
}
