package retention_test

import (
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib/retention"
	"github.com/matryer/is"
)

func TestRulesSayWhatIsKept(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]retention.Bounds{
		"*=10s":                 {Age: 10 * time.Second},
		"*=5m":                  {Age: 5 * time.Minute},
		"*=12h":                 {Age: 12 * time.Hour},
		"*=007d":                {Age: 7 * day},
		"*=2w":                  {Age: 14 * day},
		"*=15250w":              {Age: 15250 * 7 * day},
		"*=100000":              {Events: 100_000},
		"*=1B":                  {Bytes: 1},
		"*=3kB":                 {Bytes: 3000},
		"*=3MB":                 {Bytes: 3_000_000},
		"*=3GB":                 {Bytes: 3_000_000_000},
		"*=3TB":                 {Bytes: 3_000_000_000_000},
		"*=3KiB":                {Bytes: 3 << 10},
		"*=3MiB":                {Bytes: 3 << 20},
		"*=3GiB":                {Bytes: 3 << 30},
		"*=3TiB":                {Bytes: 3 << 40},
		"*=9223372036854775807": {Events: 1<<63 - 1},
		"*=7d,1GB":              {Age: 7 * day, Bytes: 1e9},
		"*=5,1GB,7d":            {Age: 7 * day, Bytes: 1e9, Events: 5},
	} {
		is := is.New(t)
		rules, err := retention.Retain(text)
		is.NoErr(err)
		is.Equal(rules.Of("anything"), want)
	}
}

func TestTheNameOrElseTheLongestPrefixWins(t *testing.T) {
	is := is.New(t)
	rules, err := retention.Retain("*=1", "log*=2", "log=3", "logs/*=4", "logs/a=b*=5", "logs/=6", "l*=7")
	is.NoErr(err)
	for name, want := range map[string]int64{
		"x": 1, "L": 1, "l": 7, "lo": 7, "log": 3, "logo": 2, "logs/": 6, "logs/a": 4, "logs/a=b": 5, "logs/a=bc": 5,
	} {
		is.Equal(rules.Of(name), retention.Bounds{Events: want})
	}
	rules, err = retention.Retain("a/*=1", "b=2")
	is.NoErr(err)
	for _, name := range []string{"a", "", "b/", "bb", "A/"} {
		is.Equal(rules.Of(name), retention.Bounds{})
	}
	rules, err = retention.Expire("a*=30d", "a/b*=1w")
	is.NoErr(err)
	is.Equal(rules.Of("a/b"), retention.Bounds{Age: 7 * 24 * time.Hour})
	is.Equal(retention.Rules{}.Of("a"), retention.Bounds{})
}

func TestWrongRulesNameThePart(t *testing.T) {
	for _, test := range []struct{ rule, want string }{
		{"jobs*", `"jobs*": a rule is NAME=BOUNDS or PREFIX*=BOUNDS, and this one has no =`},
		{"", `"": a rule is`},
		{"=7d", `"=7d": no stream is named; * is for all of them`},
		{"a*b=7d", `"a*b=7d": "a*b": a * stands at the end of a prefix, and nowhere else`},
		{"**=7d", `"**": a * stands at the end`},
		{"a\n*=7d", `control character`},
		{strings.Repeat("a", 256) + "=7d", "the limit is 255"},
		{"a=", `"a=": "": a bound is a whole number with a unit, such as 7d or 1GB, or a number of events`},
		{"a=7d,", `"": a bound is a whole number`},
		{"a=7d, 1GB", `" 1GB": a bound is a whole number`},
		{"a=d", `"d": a bound is a whole number`},
		{"a=1.5GB", `"1.5GB": a bound is a whole number`},
		{"a=-1d", `"-1d": a bound is a whole number`},
		{"a=+1d", `"+1d": a bound is a whole number`},
		{"a=1h30m", `"1h30m": a bound is a whole number`},
		{"a=1_000", `"1_000": a bound is a whole number`},
		{"a=0", `"a=0": "0": it would keep nothing`},
		{"a=0d", `"0d": it would keep nothing`},
		{"a=1GB,00kB", `"00kB": it would keep nothing`},
		{"a=7D", `"7D": there is no unit "D": an age is in s, m, h, d or w, and a size in B, kB, MB,`},
		{"a=1gb", `there is no unit "gb"`},
		{"a=1KB", `there is no unit "KB"`},
		{"a=7d,1y", `"a=7d,1y": "1y": there is no unit "y"`},
		{"a=9223372036854775808", `"9223372036854775808": it is too much`},
		{"a=99999999999999999999999s", `it is too much`},
		{"a=15251w", `"15251w": it is too much`},
		{"a=9223372TB", ""},
		{"a=9223373TB", `"9223373TB": it is too much`},
		{"a=7d,1w", `"a=7d,1w": "1w": there is another age in this rule`},
		{"a=1GB,1MiB", `"1MiB": there is another size in this rule`},
		{"a=5,6", `"6": there is another number of events in this rule`},
	} {
		is := is.New(t)
		_, err := retention.Retain("*=1", test.rule)
		if test.want == "" {
			is.NoErr(err)
		} else if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %s", test.rule, err, test.want)
		}
	}
	is := is.New(t)
	_, err := retention.Retain("a*=7d", "a=7d", "a*=1GB")
	is.Equal(err.Error(), `"a*=1GB": there is another rule for "a*"`)
	for _, rule := range []string{"a=1GB", "a=5", "a=7d,1GB"} {
		_, err := retention.Expire(rule)
		is.Equal(err.Error(), `"`+rule+`": a stream expires by an age alone, such as 30d`)
	}
}

// FuzzRules: whatever is read has a bound, and is read again as the same.
func FuzzRules(f *testing.F) {
	f.Add("jobs/*=7d,1GB,100000")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := retention.Retain(text)
		if err != nil {
			return
		}
		pattern := text[:strings.LastIndexByte(text, '=')]
		b := rules.Of(strings.TrimSuffix(pattern, "*"))
		if b == (retention.Bounds{}) || b.Age < 0 || b.Bytes < 0 || b.Events < 0 {
			t.Errorf("%q: %+v", text, b)
		}
	})
}
