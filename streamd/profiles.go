package main

import (
	"cmp"
	"fmt"
	"net/http"
	"path"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// mostProfile is how long a profile may take, in seconds: a server's answers may take five minutes.
const mostProfile = 240

// sampleNothing ends the sampling of what takes memory, which is for a profile that nobody can ask for without --admin.
var sampleNothing = sync.OnceFunc(func() { runtime.MemProfileRate = 0 })

// profiles answers GET /debug/pprof/NAME as net/http/pprof does, for go tool pprof and go tool trace. That would make
// the program larger by half a megabyte.
func profiles(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	if name == "pprof" {
		for _, p := range pprof.Profiles() {
			fmt.Fprintf(w, "%s %d\n", p.Name(), p.Count())
		}
		fmt.Fprint(w, "profile\ntrace\n")
		return
	}
	start, stop, seconds := func() error { return pprof.StartCPUProfile(w) }, pprof.StopCPUProfile, "30"
	if name == "trace" {
		start, stop, seconds = func() error { return trace.Start(w) }, trace.Stop, "1"
	}
	n, err := strconv.Atoi(cmp.Or(r.FormValue("seconds"), seconds))
	debug, _ := strconv.Atoi(r.FormValue("debug"))
	p := pprof.Lookup(name)
	w.Header().Set("Content-Type", "application/octet-stream")
	if debug > 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	switch {
	case p != nil:
		_ = p.WriteTo(w, debug) // the client may have gone
	case name != "profile" && name != "trace":
		http.Error(w, "there is no such profile", http.StatusNotFound)
	case err != nil || n < 1 || n > mostProfile:
		http.Error(w, fmt.Sprintf("seconds is a number from 1 to %d", mostProfile), http.StatusBadRequest)
	default:
		if err := start(); err != nil { // somebody else's is under way
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		defer stop()
		r, done := streamhttp.UntilEnd(r)
		defer done()
		select {
		case <-time.After(time.Duration(n) * time.Second):
		case <-r.Context().Done():
		}
	}
}
