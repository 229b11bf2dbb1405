//go:build linux

package main

import (
	"fmt"
	"strconv"
	"strings"
)

// table prints figures as they come, and counts those with an aim.
type table struct{ aims, met int }

// An aim is what a figure should be: its ratio to the floor, or where there is no floor the figure itself.
type aim struct{ least, most float64 } // 0 is no bound

func atLeast(v float64) aim { return aim{least: v} }
func atMost(v float64) aim  { return aim{most: v} }

const columns = "%-64s %14s %14s %7s %10s  %s\n"

func (t *table) head() { fmt.Printf(columns, "", "measured", "floor", "ratio", "aim", "") }

func (t *table) section(format string, args ...any) { fmt.Printf("\n"+format+"\n", args...) }

// add prints a figure. A floor of 0 is none.
func (t *table) add(what, unit string, value, floor float64, a aim) {
	compared, beside, ratio, aimed, verdict := value, "", "", "", ""
	if floor != 0 {
		compared = value / floor
		beside, ratio = short(floor)+" "+unit, strconv.FormatFloat(compared, 'f', 2, 64)
	}
	if a != (aim{}) {
		aimed, verdict = "≥ "+short(a.least), "missed"
		if a.most != 0 {
			aimed = "≤ " + short(a.most)
		}
		t.aims++
		if compared >= a.least && (a.most == 0 || compared <= a.most) {
			t.met++
			verdict = "met"
		}
	}
	fmt.Printf(columns, "  "+what, short(value)+" "+unit, beside, ratio, aimed, verdict)
}

// short writes v with three digits, or all before the point, in groups.
func short(v float64) string {
	decimals := 0
	for limit := 100.0; v < limit && decimals < 3 && v != float64(int64(v)); limit /= 10 {
		decimals++
	}
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(v, 'f', decimals, 64), ".")
	for at := len(whole) - 3; at > 0; at -= 3 {
		whole = whole[:at] + "," + whole[at:]
	}
	if fraction = strings.TrimRight(fraction, "0"); fraction != "" {
		whole += "." + fraction
	}
	return whole
}
