package page_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

var (
	picturesOf = flag.String("pictures-of", "", "the URL of a server without streams whose page is to be pictured")
	picturesTo = flag.String("pictures-to", "", "the folder that the pictures go to")
)

// TestPictures takes the pictures that a person is to look at: scripts/screenshot-page runs it.
func TestPictures(t *testing.T) {
	if *picturesOf == "" {
		t.Skip("it is run by scripts/screenshot-page")
	}
	b := startBrowser(t)
	shop := newShop(t, &streamhttp.Client{URL: *picturesOf})
	shop.open()
	ctx, cancel := context.WithCancel(t.Context())
	var trading sync.WaitGroup
	defer trading.Wait()
	defer cancel()
	trading.Go(func() {
		for ctx.Err() == nil {
			shop.trade(ctx)
		}
	})
	var tabs []*tab
	for _, look := range looks {
		p := b.open(t, *picturesOf)
		p.size(look.width, look.height, look.name == "phone")
		p.prefer("prefers-color-scheme", look.scheme)
		tabs = append(tabs, p)
	}
	tabs[0].eval(`new Promise((done) => setTimeout(done, 20000))`) // so that there is something in the plots
	take := func(i int, name string) {
		file := filepath.Join(*picturesTo, fmt.Sprintf("page-%s-%s.png", name, looks[i].name))
		if err := os.WriteFile(file, tabs[i].picture(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range tabs {
		p.wait(`document.querySelectorAll(".rows path[d]").length > 2`)
		take(i, "list")
		p.do("Page.navigate", map[string]any{"url": *picturesOf + "/#/stream/orders"})
		p.wait(`document.querySelectorAll(".event").length > 20 && document.querySelector(".bars .some")`)
		p.wait(`document.querySelector("#status").dataset.state === "caughtup"`)
		p.eval(`document.querySelector(".event:nth-last-child(5) button").click()`)
		p.wait(`document.querySelector(".json .children")`)
		p.eval(`document.querySelector(".log").scrollTop += 80`)
		take(i, "stream")
		p.eval(`document.querySelector("main").scrollTop = 1e6`)
		take(i, "append")
		p.eval(`document.querySelector(".ways button:last-child").click()`)
		take(i, "delete")
		p.faultless(false)
	}
}

var looks = []struct {
	name          string
	width, height int
	scheme        string
}{{"light", 1280, 800, "light"}, {"dark", 1280, 800, "dark"}, {"phone", 390, 844, "light"}}

// A shop is a program with streams, as a person may have.
type shop struct {
	t      testing.TB
	client *streamhttp.Client
	random *rand.Rand
	orders int
}

func newShop(t testing.TB, c *streamhttp.Client) *shop {
	return &shop{t, c, rand.New(rand.NewPCG(1, 2)), 4000}
}

func one[T any](s *shop, of ...T) T { return of[s.random.IntN(len(of))] }

func (s *shop) append(ctx context.Context, name string, events ...any) {
	var data []json.RawMessage
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			s.t.Error(err)
		}
		data = append(data, text)
	}
	if _, err := s.client.Stream(name).Append(ctx, streamlib.Batch{Data: data}); err != nil && ctx.Err() == nil {
		s.t.Error(err)
	}
}

type item struct {
	SKU   string `json:"sku"`
	Count int    `json:"count"`
}

func (s *shop) order() any {
	s.orders++
	items := make([]item, 1+s.random.IntN(3))
	for i := range items {
		items[i] = item{fmt.Sprintf("B-%d", 10+s.random.IntN(90)), 1 + s.random.IntN(4)}
	}
	return struct {
		Type     string  `json:"type"`
		Order    int     `json:"order"`
		Amount   float64 `json:"amount"`
		Customer any     `json:"customer"`
		Items    []item  `json:"items"`
	}{one(s, "order.placed", "order.paid", "order.paid", "order.shipped", "order.refunded"), s.orders,
		float64(s.random.IntN(20_000)) / 100,
		map[string]string{"name": one(s, "Ada Lovelace", "Grace Hopper", "Alan Turing"), "country": one(s, "NL", "DE", "GB")},
		items}
}

var shopStreams = []string{"agents/research-17", "agents/writer-03", "audit", "builds/main", "builds/nightly",
	"chat/general", "deploys", "emails/outbound", "inventory", "logs/api", "logs/worker", "payments",
	"sensors/hall-2", "sessions", "users"}

// open makes the shop's streams.
func (s *shop) open() {
	for _, name := range shopStreams {
		for i := range 1 + s.random.IntN(60) {
			s.append(s.t.Context(), name, map[string]any{"type": "tick", "n": i})
		}
	}
	if _, err := s.client.Stream("builds/main").Append(s.t.Context(), streamlib.Batch{Close: true}); err != nil {
		s.t.Error(err)
	}
}

// trade appends for a moment.
func (s *shop) trade(ctx context.Context) {
	for range s.random.IntN(9) {
		s.append(ctx, "orders", s.order())
	}
	for _, name := range []string{"agents/research-17", "chat/general", "logs/api", "logs/worker", "sensors/hall-2",
		"payments", "audit"} {
		if s.random.IntN(3) == 0 {
			for range s.random.IntN(12) {
				s.append(ctx, name, map[string]any{"type": "tick", "value": s.random.IntN(100)})
			}
		}
	}
	select {
	case <-time.After(time.Duration(s.random.IntN(800)) * time.Millisecond):
	case <-ctx.Done():
	}
}
