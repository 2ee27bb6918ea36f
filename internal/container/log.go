package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// withLog makes containerd's packages log to logger, for debugging: what they
// call an error, such as a shim that went away, is an everyday event here, and
// what matters comes back as an error or a Status.
func withLog(ctx context.Context, logger *slog.Logger) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.WarnLevel)
	l.AddHook(logHook{logger})
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

type logHook struct{ logger *slog.Logger }

// Levels tells logrus what to pass on.
func (h logHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire passes an entry on.
func (h logHook) Fire(entry *logrus.Entry) error {
	var fields []any
	for key, value := range entry.Data {
		fields = append(fields, slog.Any(key, value))
	}
	h.logger.Debug("containerd: "+entry.Message, fields...)
	return nil
}

// named says what an error of containerd is about, and turns its kind into
// this package's.
func named(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err) && !errors.Is(err, ErrNotFound):
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}
