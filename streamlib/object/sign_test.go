package object

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

// TestSign signs what AWS publishes with its signature: the first two are of its test suite for Signature Version 4, the
// third is in the documentation of S3, "Signature Calculations for the Authorization Header". Google publishes none for
// these keys: the fourth was made with openssl, by its documentation, "Signatures".
func TestSign(t *testing.T) {
	const none = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	suite := amazon
	suite.service = "service"
	for _, test := range []struct {
		spelling  spelling
		url, date string
		keys      Keys
		header    map[string]string
		want      string
	}{
		{suite, "https://example.amazonaws.com/", "20150830T123600Z", testKeys, nil,
			"5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{suite, "https://example.amazonaws.com/?Param1=value1&Param2=value2", "20150830T123600Z", testKeys, nil,
			"b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{amazon, "https://examplebucket.s3.amazonaws.com/test.txt", "20130524T000000Z",
			Keys{ID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
			map[string]string{"Range": "bytes=0-9", "X-Amz-Content-Sha256": none},
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{google, "https://storage.googleapis.com/examplebucket/streams/format", "20240108T000000Z", testKeys,
			map[string]string{"X-Goog-Content-Sha256": none, "X-Goog-If-Generation-Match": "0"},
			"a00991d0f43878c031452cc74313d84aa505e8bec94eca7a74c964dcca6c558a"},
	} {
		is := is.New(t)
		r, err := http.NewRequest(http.MethodGet, test.url, nil)
		is.NoErr(err)
		for name, value := range test.header {
			r.Header.Set(name, value)
		}
		at, err := time.Parse(dateLayout, test.date)
		is.NoErr(err)
		signer{test.spelling, test.keys}.sign(r, none, at)
		_, signature, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
		is.Equal(signature, test.want)
	}
}
