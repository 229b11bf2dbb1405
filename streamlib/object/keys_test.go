package object

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"
)

// env is an environment.
func env(variables ...string) func(string) string {
	return func(name string) string {
		for _, v := range variables {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// roles is the service of an instance, of a container and of tokens, all at once.
type roles struct {
	asked   atomic.Int64
	fails   atomic.Bool
	expires func() time.Time
}

func (s *roles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.asked.Add(1)
	role := fmt.Sprintf(`{"Code":"Success","AccessKeyId":"ID%d","SecretAccessKey":"the-secret","Token":"the-token",
		"Expiration":%q}`, n, s.expires().Format(time.RFC3339))
	switch session := r.Header.Get("X-aws-ec2-metadata-token") == "session"; {
	case s.fails.Load():
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, role) // which no error may tell
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" &&
		r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
		fmt.Fprint(w, "session")
	case session && r.URL.Path == "/latest/meta-data/iam/security-credentials/":
		fmt.Fprint(w, "a role\n")
	case session && r.URL.Path == "/latest/meta-data/iam/security-credentials/a role",
		r.URL.Path == "/container" && r.Header.Get("Authorization") == "let me":
		fmt.Fprint(w, role)
	case r.Method == http.MethodPost && r.FormValue("WebIdentityToken") == "the-identity" &&
		r.FormValue("Action") == "AssumeRoleWithWebIdentity" && r.FormValue("RoleArn") == "arn:role":
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
			<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ID%d</AccessKeyId>
			<SecretAccessKey>the-secret</SecretAccessKey><SessionToken>the-token</SessionToken>
			<Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
			n, s.expires().Format(time.RFC3339))
	default:
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")
	}
}

func TestKeysOfTheEnvironment(t *testing.T) {
	service := &roles{expires: func() time.Time { return time.Now().Add(time.Hour) }}
	server := httptest.NewServer(service)
	defer server.Close()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := "AWS_SHARED_CREDENTIALS_FILE=" + write("credentials", `
# mine
[default]
aws_access_key_id = DEFAULT
aws_secret_access_key=a=b
[ work ]
aws_access_key_id = WORK
aws_secret_access_key = c
aws_session_token = d
[half]
aws_access_key_id = HALF
`)
	none := "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(dir, "none")
	instance := "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + server.URL + "/"
	container := "AWS_CONTAINER_CREDENTIALS_FULL_URI=" + server.URL + "/container"
	letMe := "AWS_CONTAINER_AUTHORIZATION_TOKEN=let me"
	web := []string{"AWS_ENDPOINT_URL_STS=" + server.URL, "AWS_ROLE_ARN=arn:role", file,
		"AWS_WEB_IDENTITY_TOKEN_FILE=" + write("identity", "the-identity\n")}
	for _, test := range []struct {
		what, id, token, err string
		env                  []string
	}{
		{"variables", "A", "C", "", []string{"AWS_ACCESS_KEY_ID=A", "AWS_SECRET_ACCESS_KEY=B", "AWS_SESSION_TOKEN=C", file,
			instance}},
		{"half of the variables", "DEFAULT", "", "", []string{"AWS_ACCESS_KEY_ID=A", file, instance}},
		{"the file", "DEFAULT", "", "", []string{file, instance, container}},
		{"a profile", "WORK", "d", "", []string{file, "AWS_PROFILE=work"}},
		{"a profile that is not there", "", "", `no keys of the profile "other"`,
			[]string{file, "AWS_PROFILE=other", instance}},
		{"a profile without a secret", "", "", `no keys of the profile "half"`, []string{file, "AWS_PROFILE=half", instance}},
		{"the container", "ID1", "the-token", "", []string{none, container, letMe, instance}},
		{"the container, by a file", "ID1", "the-token", "", []string{none, container, "AWS_CONTAINER_AUTHORIZATION_TOKEN=no",
			"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + write("token", "let me\n")}},
		{"the container, with no token", "", "", "the container's agent answered 403 AccessDenied",
			[]string{none, container}},
		{"a container far away", "", "", "not of this machine",
			[]string{none, letMe, "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://example.com/"}},
		{"the instance", "ID3", "the-token", "", []string{none, instance}},
		{"the instance, not to be asked", "", "", "there are none: set AWS_ACCESS_KEY_ID",
			[]string{none, instance, "AWS_EC2_METADATA_DISABLED=true"}},
		{"no instance", "", "", "there are none: set AWS_ACCESS_KEY_ID",
			[]string{none, "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1"}},
		{"an identity", "ID1", "the-token", "", web},
		{"another identity", "", "", "the security token service answered 403 AccessDenied",
			append([]string{"AWS_ROLE_ARN=arn:another"}, web...)},
	} {
		t.Run(test.what, func(t *testing.T) {
			is := is.New(t)
			service.asked.Store(0)
			keys, err := Environment(env(test.env...))(t.Context())
			if test.err != "" {
				is.True(err != nil)
				is.True(strings.Contains(err.Error(), test.err))
				return
			}
			is.NoErr(err)
			is.Equal(keys.ID, test.id)
			is.Equal(keys.Token, test.token)
			is.True(keys.Secret != "")
		})
	}
}

// TestKeysAreRenewed: in time, by one of those who need them, and the former ones serve until they expire.
func TestKeysAreRenewed(t *testing.T) {
	is := is.New(t)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	service := &roles{}
	service.expires = func() time.Time { return now.Add(time.Hour) }
	server := httptest.NewServer(service)
	defer server.Close()
	r := &renewed{now: func() time.Time { return now }, fetch: containerRole(env(
		"AWS_CONTAINER_CREDENTIALS_FULL_URI="+server.URL+"/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN=let me"))}
	get := func(want string) {
		t.Helper()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if keys, err := r.get(t.Context()); err != nil || want != "" && keys.ID != want {
					t.Errorf("%v %v", keys.ID, err)
				}
			})
		}
		all.Wait()
	}
	get("ID1")
	now = now.Add(54 * time.Minute)
	get("ID1")
	now = now.Add(2 * time.Minute)
	get("") // one of them asks
	get("ID2")
	service.fails.Store(true)
	now = now.Add(59 * time.Minute)
	get("ID2")
	is.Equal(service.asked.Load(), int64(3))
	get("ID2")
	is.Equal(service.asked.Load(), int64(3)) // and not again and again
	now = now.Add(2 * time.Minute)
	_, err := r.get(t.Context())
	is.True(err != nil)
	is.True(!strings.Contains(err.Error(), "the-secret"))
	is.True(strings.Contains(err.Error(), "the container's agent answered 500"))
	is.Equal(service.asked.Load(), int64(4))
	service.fails.Store(false)
	_, err = r.get(t.Context())
	is.True(err != nil) // it is asked again soon
	now = now.Add(again)
	get("ID5")
	is.Equal(service.asked.Load(), int64(5))
}

// TestKeysThatCannotBeHad are an error that says that nothing was stored, and of which request they are no part.
func TestKeysThatCannotBeHad(t *testing.T) {
	is := is.New(t)
	o := newFake().options()
	o.Keys = func(context.Context) (Keys, error) { return Keys{}, errors.New("no role") }
	_, err := Open(t.Context(), o)
	is.True(strings.Contains(err.Error(), "no keys for the store: no role"))
}

func TestRegion(t *testing.T) {
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "config")
	is.NoErr(os.WriteFile(path, []byte("[default]\nregion = eu-west-1\n[profile work]\nregion=cn-north-1\n"), 0o600))
	file := "AWS_CONFIG_FILE=" + path
	is.Equal(Region(env(file)), "eu-west-1")
	is.Equal(Region(env(file, "AWS_PROFILE=work")), "cn-north-1")
	is.Equal(Region(env(file, "AWS_PROFILE=other")), "")
	is.Equal(Region(env(file, "AWS_DEFAULT_REGION=a")), "a")
	is.Equal(Region(env(file, "AWS_DEFAULT_REGION=a", "AWS_REGION=b")), "b")
}

func TestEndpoint(t *testing.T) {
	for _, test := range []struct{ bucket, endpoint, region, want string }{
		{"b", "", "us-east-1", "https://b.s3.us-east-1.amazonaws.com"},
		{"b", "", "cn-north-1", "https://b.s3.cn-north-1.amazonaws.com.cn"},
		{"a.b", "", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/a.b"},
		{"b", "http://127.0.0.1:9000", "", "http://127.0.0.1:9000/b"},
		{"b", "https://s3.example.com/", "", "https://s3.example.com/b"},
		{"b", "https://example.com/s3/", "", "https://example.com/s3/b"},
		{"b", "https://{bucket}.s3.example.com/", "", "https://b.s3.example.com"},
		{"b", "https://{bucket}.s3.example.com:8443", "", "https://b.s3.example.com:8443"},
		{"b", "s3.example.com", "", ""},
		{"b", "ftp://s3.example.com", "", ""},
		{"b", "https://me:the-secret@s3.example.com", "", ""},
		{"b", "https://s3.example.com/?key=the-secret", "", ""},
	} {
		is := is.New(t)
		base, err := baseURL(Options{Bucket: test.bucket, Endpoint: test.endpoint, Region: test.region})
		if test.want == "" {
			is.True(err != nil)
			is.True(!strings.Contains(err.Error(), "secret"))
			continue
		}
		is.NoErr(err)
		is.Equal(base.String(), test.want)
	}
}
