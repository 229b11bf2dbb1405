package object

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	early  = 5 * time.Minute  // before they expire, keys are renewed
	again  = 10 * time.Second // until they are asked for again where that has failed
	asking = 3 * time.Second  // for keys, at most
)

var errNoKeys = errors.New("there are none: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"write ~/.aws/credentials, or give the instance or container a role")

// Environment returns who the process is to a store, as getenv and the machine say. The first of these counts that is
// there:
//
//   - AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with AWS_SESSION_TOKEN;
//   - the role AWS_ROLE_ARN, to whoever has the token in AWS_WEB_IDENTITY_TOKEN_FILE (Kubernetes);
//   - the profile AWS_PROFILE, or else "default", in AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, which is read
//     each time;
//   - the role of the container, from AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI (ECS, EKS);
//   - the role of the instance (EC2, IMDSv2), unless AWS_EC2_METADATA_DISABLED is true.
//
// The keys of roles are renewed five minutes before they expire, and used until then where that fails. No error has
// anything of a key in it.
func Environment(getenv func(string) string) func(context.Context) (Keys, error) {
	web := &renewed{now: time.Now, fetch: webIdentity(getenv)}
	container := &renewed{now: time.Now, fetch: containerRole(getenv)}
	instance := &renewed{now: time.Now, fetch: instanceRole(getenv)}
	return func(ctx context.Context) (Keys, error) {
		k := Keys{ID: getenv("AWS_ACCESS_KEY_ID"), Secret: getenv("AWS_SECRET_ACCESS_KEY"),
			Token: getenv("AWS_SESSION_TOKEN")}
		if k.ID != "" && k.Secret != "" {
			return k, nil
		}
		if getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "" && getenv("AWS_ROLE_ARN") != "" {
			return web.get(ctx)
		}
		profile := getenv("AWS_PROFILE")
		section, err := profileIn(getenv("AWS_SHARED_CREDENTIALS_FILE"), "credentials", cmp.Or(profile, "default"))
		if err != nil {
			return Keys{}, err
		}
		k = Keys{ID: section["aws_access_key_id"], Secret: section["aws_secret_access_key"],
			Token: section["aws_session_token"]}
		switch {
		case k.ID != "" && k.Secret != "":
			return k, nil
		case profile != "":
			return Keys{}, fmt.Errorf("the credentials' file has no keys of the profile %q", profile)
		case getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "", getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != "":
			return container.get(ctx)
		case strings.EqualFold(getenv("AWS_EC2_METADATA_DISABLED"), "true"):
			return Keys{}, errNoKeys
		}
		return instance.get(ctx)
	}
}

// Region returns the region that getenv says, or else the profile in AWS_CONFIG_FILE or ~/.aws/config; "" where none
// does.
func Region(getenv func(string) string) string {
	if region := cmp.Or(getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION")); region != "" {
		return region
	}
	profile := "default"
	if p := getenv("AWS_PROFILE"); p != "" && p != profile {
		profile = "profile " + p
	}
	section, _ := profileIn(getenv("AWS_CONFIG_FILE"), "config", profile)
	return section["region"]
}

// profileIn returns what a section of one of AWS's files has. A file that is not there has none.
func profileIn(path, name, section string) (map[string]string, error) {
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil { // as in a container, which has a role
			return nil, nil
		}
		path = filepath.Join(home, ".aws", name)
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	has, in := map[string]string{}, false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			in = strings.Join(strings.Fields(strings.Trim(line, "[]")), " ") == section
		} else if key, value, ok := strings.Cut(line, "="); ok && in {
			has[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return has, lines.Err()
}

// renewed are keys that expire.
type renewed struct {
	fetch func(context.Context) (Keys, error)
	now   func() time.Time

	renewing sync.Mutex // held by who asks for others

	mu    sync.Mutex // guards what follows
	keys  Keys
	tried time.Time
	err   error // why the last try failed
}

// get returns keys that hold. Who comes while they are renewed gets the former ones as long as these do.
func (r *renewed) get(ctx context.Context) (Keys, error) {
	keys, hold, due, err := r.known()
	switch {
	case !due && hold:
		return keys, nil
	case !due:
		return Keys{}, err
	case !hold:
		r.renewing.Lock()
	case !r.renewing.TryLock():
		return keys, nil
	}
	defer r.renewing.Unlock()
	if keys, hold, due, err = r.known(); due { // else another was first
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), asking)
		defer cancel()
		fresh, failed := r.fetch(ctx)
		if failed == nil && fresh.Expires.IsZero() {
			fresh.Expires = r.now().Add(3 * early)
		}
		r.mu.Lock()
		if r.tried, r.err = r.now(), failed; failed == nil {
			r.keys = fresh
		}
		r.mu.Unlock()
		keys, hold, _, err = r.known()
	}
	if !hold {
		return Keys{}, cmp.Or(err, errors.New("those of the role have expired, and there are no others yet"))
	}
	return keys, nil
}

// known returns the keys that there are, whether they hold, and whether it is time to ask for others; or else why
// that has failed.
func (r *renewed) known() (keys Keys, hold, due bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	left := r.keys.Expires.Sub(now)
	since := now.Sub(r.tried)
	return r.keys, r.keys.ID != "" && left > 0, left <= early && (since >= again || since < 0), r.err
}
