package tokens

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// sessionTime is how long a session lasts.
const sessionTime = 12 * time.Hour

// sign returns the signature of a session: of whose it is and how long. It holds for the token's very secret.
func (f *File) sign(name string, until int64, digest [sha256.Size]byte) []byte {
	mac := hmac.New(sha256.New, f.key)
	fmt.Fprintf(mac, "%s\n%d\n%x", name, until, digest)
	return mac.Sum(nil)
}

var base = base64.RawURLEncoding

// Session is streamhttp.Access's.
func (f *File) Session(r *http.Request) (*http.Cookie, error) {
	cookie := &http.Cookie{
		Name: f.cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"), MaxAge: -1,
	}
	if r.Method == http.MethodDelete {
		return cookie, nil
	}
	t, err := f.use.Load().bearer(r)
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(sessionTime)
	if !t.Expires.IsZero() && t.Expires.Before(until) {
		until = t.Expires
	}
	cookie.MaxAge = max(1, int(time.Until(until).Seconds()))
	cookie.Value = fmt.Sprintf("%s.%d.%s", base.EncodeToString([]byte(t.Name)), until.Unix(),
		base.EncodeToString(f.sign(t.Name, until.Unix(), t.Digest)))
	return cookie, nil
}

// bySession is the grant of a session.
func (f *File) bySession(now *table, r *http.Request) (g streamhttp.Grant, err error) {
	if r.Header["Cookie"] == nil {
		return g, errNone
	}
	err = errNone
	for _, cookie := range r.CookiesNamed(f.cookie) {
		err = errSession
		parts := strings.Split(cookie.Value, ".")
		if len(parts) != 3 {
			continue
		}
		name, errName := base.DecodeString(parts[0])
		seconds, errUntil := strconv.ParseInt(parts[1], 10, 64)
		signature, errSignature := base.DecodeString(parts[2])
		if errName != nil || errUntil != nil || errSignature != nil {
			continue
		}
		t, known := now.byName[string(name)]
		if !known {
			t = &Token{} // takes as long
		}
		until := time.Unix(seconds, 0)
		if !t.Expires.IsZero() && t.Expires.Before(until) {
			until = t.Expires
		}
		if hmac.Equal(signature, f.sign(t.Name, seconds, t.Digest)) && known && time.Now().Before(until) {
			return now.grant(t, until), nil
		}
	}
	return g, err
}
