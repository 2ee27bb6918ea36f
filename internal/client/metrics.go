package client

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"connectrpc.com/connect"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxMetrics bounds the answer to a scrape; a node with 1000 objects sends
// about a quarter of it.
const maxMetrics = 32 << 20

// Metrics reads the node's metrics once, by name; see docs/metrics.md.
func (c *Client) Metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, Explain(err, c.address)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // the status alone says enough
		code := connect.CodeUnknown
		switch resp.StatusCode {
		case http.StatusUnauthorized:
			code = connect.CodeUnauthenticated
		case http.StatusForbidden:
			code = connect.CodePermissionDenied
		case http.StatusServiceUnavailable:
			code = connect.CodeUnavailable
		}
		return nil, connect.NewError(code, fmt.Errorf("the node's metrics: %s: %s", resp.Status, text))
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(resp.Body, maxMetrics))
	if err != nil {
		return nil, fmt.Errorf("the node's metrics are not understood: %w", Explain(err, c.address))
	}
	return families, nil
}
