package object

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// metadata asks the services of the machine and of the container, which no proxy stands before and which redirect
// nobody.
var metadata = &http.Client{
	Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: time.Second}).DialContext, DisableKeepAlives: true,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// answered returns the body of a good answer. Its errors tell of no answer more than the status: it may have keys in
// it.
func answered(client *http.Client, r *http.Request, what string) ([]byte, error) {
	response, err := client.Do(r)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if response.StatusCode != http.StatusOK {
		var said struct{ Error struct{ Code string } }
		_ = xml.Unmarshal(body, &said)
		return nil, errors.New(strings.TrimSpace(fmt.Sprint(what, " answered ", response.StatusCode, " ", said.Error.Code)))
	}
	return body, nil
}

// roleKeys are those of an answer of the machine's, or of the container's, service.
func roleKeys(body []byte, what string) (Keys, error) {
	var said struct {
		Code                                string // of the machine's
		AccessKeyID, SecretAccessKey, Token string
		Expiration                          time.Time
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Code != "" && said.Code != "Success" ||
		said.AccessKeyID == "" || said.SecretAccessKey == "" {
		return Keys{}, fmt.Errorf("%s has no keys of its role", what)
	}
	return Keys{said.AccessKeyID, said.SecretAccessKey, said.Token, said.Expiration}, nil
}

// instanceRole asks the instance for the keys of its role: docs.aws.amazon.com, "Use the Instance Metadata Service".
func instanceRole(getenv func(string) string) func(context.Context) (Keys, error) {
	return func(ctx context.Context) (Keys, error) {
		base := strings.TrimRight(cmp.Or(getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "http://169.254.169.254"), "/")
		const what = "the instance"
		ask := func(method, path, header, value string) (string, error) {
			r, err := http.NewRequestWithContext(ctx, method, base+"/latest/"+path, nil)
			if err != nil {
				return "", err
			}
			r.Header.Set(header, value)
			body, err := answered(metadata, r, what)
			return strings.TrimSpace(string(body)), err
		}
		token, err := ask(http.MethodPut, "api/token", "X-aws-ec2-metadata-token-ttl-seconds", "300")
		if err != nil {
			return Keys{}, fmt.Errorf("%w; %w", errNoKeys, err)
		}
		const roles = "meta-data/iam/security-credentials/"
		role, err := ask(http.MethodGet, roles, "X-aws-ec2-metadata-token", token)
		if err != nil {
			return Keys{}, fmt.Errorf("%w; %w", errNoKeys, err)
		}
		role, _, _ = strings.Cut(role, "\n")
		body, err := ask(http.MethodGet, roles+url.PathEscape(role), "X-aws-ec2-metadata-token", token)
		if err != nil {
			return Keys{}, err
		}
		return roleKeys([]byte(body), what)
	}
}

// containerRole asks the container's agent: docs.aws.amazon.com, "Container credential provider".
func containerRole(getenv func(string) string) func(context.Context) (Keys, error) {
	return func(ctx context.Context) (Keys, error) {
		at := getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
		if relative := getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); relative != "" {
			at = "http://169.254.170.2" + relative
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
		if err != nil || r.URL.Scheme != "https" && !isAgent(r.URL.Hostname()) {
			return Keys{}, errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI is no https:// URL, and not of this machine")
		}
		token := getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
		if path := getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); path != "" {
			b, err := os.ReadFile(path)
			if err != nil {
				return Keys{}, err
			}
			token = string(b)
		}
		if token = strings.TrimSpace(token); strings.ContainsAny(token, "\r\n") {
			return Keys{}, errors.New("the container's authorization token has more than one line")
		}
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		body, err := answered(metadata, r, "the container's agent")
		if err != nil {
			return Keys{}, err
		}
		return roleKeys(body, "the container's agent")
	}
}

// isAgent tells whether a token may be sent to the host without TLS.
func isAgent(host string) bool {
	switch host {
	case "localhost", "169.254.170.2", "169.254.170.23", "fd00:ec2::23":
		return true
	}
	return net.ParseIP(host).IsLoopback()
}

// webIdentity lets AWS's Security Token Service exchange the token of a file for keys of a role: docs.aws.amazon.com,
// "AssumeRoleWithWebIdentity".
func webIdentity(getenv func(string) string) func(context.Context) (Keys, error) {
	return func(ctx context.Context) (Keys, error) {
		token, err := os.ReadFile(getenv("AWS_WEB_IDENTITY_TOKEN_FILE")) // which is renewed, too
		if err != nil {
			return Keys{}, err
		}
		at := cmp.Or(getenv("AWS_ENDPOINT_URL_STS"), getenv("AWS_ENDPOINT_URL"),
			"https://sts."+cmp.Or(Region(getenv), "us-east-1")+"."+domain(Region(getenv)))
		form := url.Values{
			"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {getenv("AWS_ROLE_ARN")},
			"RoleSessionName":  {cmp.Or(getenv("AWS_ROLE_SESSION_NAME"), "streamd")},
			"WebIdentityToken": {strings.TrimSpace(string(token))},
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(form.Encode()))
		if err != nil {
			return Keys{}, err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		const what = "the security token service"
		body, err := answered(http.DefaultClient, r, what)
		if err != nil {
			return Keys{}, err
		}
		var said struct {
			Credentials struct {
				AccessKeyID     string `xml:"AccessKeyId"`
				SecretAccessKey string
				SessionToken    string
				Expiration      time.Time
			} `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
		}
		if err := xml.Unmarshal(body, &said); err != nil || said.Credentials.AccessKeyID == "" {
			return Keys{}, errors.New(what + " has sent no keys")
		}
		c := said.Credentials
		return Keys{c.AccessKeyID, c.SecretAccessKey, c.SessionToken, c.Expiration}, nil
	}
}

// domain is the end of the names of AWS's hosts in a region.
func domain(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}
