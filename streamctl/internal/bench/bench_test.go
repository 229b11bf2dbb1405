package bench

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

func TestHistogramIsAtMostHalfAPercentOff(t *testing.T) {
	is := is.New(t)
	for v := 1.0; v < longest; v *= 1.01 {
		n := uint64(v)
		off := math.Abs(float64(middle(bucket(n)))-float64(n)) / float64(n)
		is.True(off < 0.004)
	}
	var h Histogram
	for n := range 100_000 {
		h.Add(time.Duration(n+1) * time.Microsecond)
	}
	h.Add(48 * time.Hour)
	s := h.Summary()
	is.Equal(s.Count, int64(100_001))
	is.Equal(s.Max, 48*time.Hour)
	for got, want := range map[time.Duration]time.Duration{s.P50: 50 * time.Millisecond,
		s.P90: 90 * time.Millisecond, s.P99: 99 * time.Millisecond} {
		is.True(math.Abs(float64(got-want)) < 0.004*float64(want))
	}
	is.Equal(new(Histogram).Summary(), Summary{})
}

func TestCheckerTellsWhatIsMissingDoubledAndLate(t *testing.T) {
	for _, test := range []struct {
		offsets                  []int64
		missing, duplicate, late int64
	}{
		{[]int64{0, 1, 2, 3, 4}, 0, 0, 0},
		{[]int64{0, 1, 2, 3, 4, 5}, 0, 0, 0}, // more than was acknowledged
		{[]int64{0, 1, 2}, 2, 0, 0},
		{[]int64{}, 5, 0, 0},
		{[]int64{2, 3, 4}, 2, 0, 0},
		{[]int64{0, 1, 1, 2, 0, 3, 4}, 0, 2, 0},
		{[]int64{0, 2, 1, 3, 4}, 0, 0, 1},
		{[]int64{4, 2, 2, 0}, 2, 1, 2},
	} {
		t.Run(fmt.Sprint(test.offsets), func(t *testing.T) {
			is := is.New(t)
			var c checker
			for _, offset := range test.offsets {
				c.saw(offset)
			}
			is.Equal([]int64{c.missing(5), c.duplicate, c.late}, []int64{test.missing, test.duplicate, test.late})
		})
	}
}

// server is a real one, over memory, behind a handler that sees each request first.
func server(t *testing.T, first func(http.ResponseWriter, *http.Request) (done bool)) string {
	handler := streamhttp.NewHandler(streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}),
		streamhttp.Config{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first == nil || !first(w, r) {
			handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func streams(t *testing.T, url string) string {
	response, err := http.Get(url + "/streams")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return strings.TrimSpace(string(body))
}

func TestRunCountsWhatAServerDoes(t *testing.T) {
	for name, l := range map[string]Load{
		"least":         {Events: 100, Size: MinSize},
		"many of all":   {Events: 640, Conns: 8, Streams: 3, Size: 200, Subscribers: 7},
		"long lines":    {Events: 10, Size: 100_000, Subscribers: 2},
		"batches":       {Events: 300, Conns: 2, Streams: 2, Size: 200, Batch: 10, Subscribers: 2},
		"at some speed": {Events: 20, Conns: 2, Size: 200, Rate: 1000, Subscribers: 1},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			l.URL = server(t, nil)
			settled := false
			l.Settled = func() { settled = true }
			r, err := Run(t.Context(), l)
			is.NoErr(err)
			is.NoErr(r.Err)
			is.Equal(r.Appended, int64(l.Events))
			is.Equal(r.Append.Count, int64(l.Events/max(l.Batch, 1)))
			is.Equal(r.Delivery.Count, r.Delivered)
			if l.Streams == 0 { // else the streams' shares vary
				is.Equal(r.Delivered, int64(l.Events*l.Subscribers))
			}
			is.Equal([]int64{r.Failed, r.Missing, r.Duplicate, r.OutOfOrder}, []int64{0, 0, 0, 0})
			is.True(settled)
			is.Equal(streams(t, l.URL), `{"streams":[]}`) // they were deleted
		})
	}
}

func TestRunThatIsInterruptedDeletesItsStreams(t *testing.T) {
	is := is.New(t)
	ctx, interrupt := context.WithCancel(t.Context())
	var mu sync.Mutex
	appends := 0
	url := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPost {
			appends++
		}
		if appends == 50 {
			interrupt()
		}
		return false
	})
	r, err := Run(ctx, Load{URL: url, Conns: 4, Streams: 10, Size: 200, Subscribers: 10, Duration: time.Hour})
	is.NoErr(err)
	is.NoErr(r.Err) // what was under way was seen to its end
	is.True(r.Appended >= 50)
	is.Equal(r.Missing, int64(0))
	is.Equal(streams(t, url), `{"streams":[]}`)
}

func TestRunCountsRefusedRequestsAndGoesOn(t *testing.T) {
	is := is.New(t)
	var mu sync.Mutex
	appends := 0
	url := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodPost {
			return false
		}
		switch appends++; appends {
		case 3:
			http.Error(w, "no room", http.StatusInsufficientStorage)
			return true
		case 5:
			panic(http.ErrAbortHandler) // breaks the connection
		}
		return false
	})
	r, err := Run(t.Context(), Load{URL: url, Size: 200, Events: 10})
	is.NoErr(err)
	is.Equal(r.Failed, int64(2))
	is.Equal(r.Err.Error(), "append: status 507: no room")
	is.Equal(r.Appended, int64(8))
}

func TestRunFindsWhatSubscribersDoNotGetRight(t *testing.T) {
	is := is.New(t)
	events := make(chan int64, 100)
	var tail int64
	url := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		switch r.Method {
		case http.MethodPost:
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"offset":"%016d"}`, tail)
			switch tail {
			case 3, 7: // never, later
			case 5:
				events <- 5
				events <- 5
			case 8:
				events <- 8
				events <- 7
			default:
				events <- tail
			}
			tail++
		case http.MethodGet:
			w.WriteHeader(http.StatusOK)
			for n := 0; n < 10; n++ {
				http.NewResponseController(w).Flush()
				fmt.Fprintf(w, "id: %d\ndata: {}\n\n", <-events)
			}
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
		return r.Method != http.MethodDelete
	})
	r, err := Run(t.Context(), Load{URL: url, Size: 200, Events: 10, Subscribers: 1})
	is.NoErr(err)
	is.Equal([]int64{r.Missing, r.Duplicate, r.OutOfOrder}, []int64{1, 1, 1})
}

func TestRunDoesNotWaitForEverForWhatSubscribersLack(t *testing.T) {
	is := is.New(t)
	url := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler) // breaks the subscription
		}
		return false
	})
	r, err := Run(t.Context(), Load{URL: url, Size: 200, Events: 10, Subscribers: 1, Patience: time.Millisecond})
	is.NoErr(err)
	is.Equal(r.Missing, int64(10))
	is.Equal(r.Failed, int64(1))
}

func TestCatchupReadsEachEventOnce(t *testing.T) {
	is := is.New(t)
	url := server(t, nil)
	r, err := Run(t.Context(), Load{URL: url, Size: 200, Events: 5000, Batch: 1000, Keep: true})
	is.NoErr(err)
	_, err = Catchup(t.Context(), url, r.Streams[0], 5000)
	is.NoErr(err)
}

func TestRunSaysThatNobodyListens(t *testing.T) {
	is := is.New(t)
	gone := httptest.NewServer(nil)
	gone.Close()
	_, err := Run(t.Context(), Load{URL: gone.URL, Size: 200, Events: 1})
	is.True(err != nil)
}
