package object

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

const dateLayout = "20060102T150405Z"

// A signer signs requests as AWS Signature Version 4 has it: docs.aws.amazon.com, "Create a signed AWS API request".
// Google's, GOOG4-HMAC-SHA256, is the same with other words in it.
type signer struct {
	spelling
	keys Keys
}

// sign signs the request as made at t, with all its headers. Sum is the SHA-256 of the body in hex. The request's path
// and query are in the canonical form.
func (s signer) sign(r *http.Request, sum string, t time.Time) {
	r.Header.Set(s.prefix+"Date", t.UTC().Format(dateLayout))
	if s.keys.Token != "" {
		r.Header.Set(s.prefix+"Security-Token", s.keys.Token)
	}
	names := []string{"host"}
	values := map[string]string{"host": r.Host}
	for name, v := range r.Header {
		name = strings.ToLower(name)
		names = append(names, name)
		values[name] = strings.Join(strings.Fields(strings.Join(v, ",")), " ")
	}
	slices.Sort(names)
	var canonical strings.Builder
	canonical.WriteString(r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.RawQuery + "\n")
	for _, name := range names {
		canonical.WriteString(name + ":" + values[name] + "\n")
	}
	signed := strings.Join(names, ";")
	canonical.WriteString("\n" + signed + "\n" + sum)
	date := t.UTC().Format(dateLayout)
	parts := []string{date[:8], s.region, s.service, strings.ToLower(s.scheme) + "_request"}
	scope, algorithm := strings.Join(parts, "/"), s.scheme+"-HMAC-SHA256"
	text := algorithm + "\n" + date + "\n" + scope + "\n" + hash([]byte(canonical.String()))
	key := []byte(s.scheme + s.keys.Secret)
	for _, part := range parts {
		key = mac(key, part)
	}
	r.Header.Set("Authorization", algorithm+" Credential="+s.keys.ID+"/"+scope+", SignedHeaders="+signed+
		", Signature="+hex.EncodeToString(mac(key, text)))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// escape is the encoding of RFC 3986 in which only the unreserved characters, and those of keep, stand for themselves.
func escape(s, keep string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~"+keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
	}
	return b.String()
}
