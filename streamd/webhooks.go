package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/iterate/durable-streams/streamd/internal/webhook"
	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/follower"
)

// webhooksDir is the folder's folder with what webhooks keep.
const webhooksDir = "webhooks"

type webhooks []*webhook.Webhook

// readWebhooks reads the rules of --webhook.
func (o *options) readWebhooks() error {
	seen := map[string]bool{}
	for _, text := range o.webhookTexts {
		r, err := webhook.ParseRule(text)
		if err == nil && seen[text] {
			err = fmt.Errorf("%q is given twice", text)
		}
		if err != nil {
			return fmt.Errorf("--webhook %w", err)
		}
		seen[text] = true
		o.webhooks = append(o.webhooks, r)
	}
	return nil
}

// openWebhooks opens those of the flags: what is appended from then on is posted once they run.
func openWebhooks(ctx context.Context, o options, m *streamlib.Manager, log *slog.Logger) (hooks webhooks, err error) {
	for _, r := range o.webhooks {
		o.manager.tell("STATUS=looking where the streams end, for the webhook " + r.String())
		w, err := webhook.Open(ctx, r, webhook.Options{
			Manager: m, Dir: filepath.Join(o.dir, webhooksDir), Fresh: o.storage == "memory",
			AllowPrivate: o.webhookLocal, Log: log, UserAgent: "streamd/" + daemon.Version(),
		})
		if err != nil {
			return nil, err
		}
		log.Info("posting what is appended", "webhook", r.String(), "secret", w.Report().Secret)
		hooks = append(hooks, w)
	}
	return hooks, nil
}

// start lets the webhooks post until the function that it returns is called, which waits for their end.
func (hooks webhooks) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, w := range hooks {
		running.Go(func() { w.Run(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

// reports tells how far each of them is.
func (hooks webhooks) reports() (reports []follower.Report) {
	for _, w := range hooks {
		reports = append(reports, w.Report())
	}
	return reports
}
