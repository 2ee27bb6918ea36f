package oip

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// What is taken for an inference without the mux is the same one to the mux.
func FuzzInference(f *testing.F) {
	for _, path := range []string{"m/infer", "m/versions/1/infer", "a%20b/infer", "a%2Fb/infer", "a%252Fb/infer", "./infer", "../infer", "m//infer", "/infer", "m/versions//infer", "m/versions/../infer", "m/versions/1/infer/infer", "versions/1/infer", "m/infer/infer", "m/infer?x", "m;a/infer", "ü/infer", "infer"} {
		f.Add("POST", "/v2/models/"+path)
	}
	f.Add("GET", "/v2/models/m/infer")
	var model, version string
	mux := http.NewServeMux()
	for _, pattern := range []string{inferPattern, inferVersionPattern} {
		mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) {
			model, version = r.PathValue("model"), r.PathValue("version")
		})
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: method, URL: u, Host: "node", RequestURI: target}
		gotModel, gotVersion, ok := inference(r)
		if !ok {
			return
		}
		model, version = "", ""
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code != http.StatusOK || model != gotModel || version != gotVersion {
			t.Errorf("%q asks for %q, version %q; the mux says %d, %q, %q", target, gotModel, gotVersion, w.Code, model, version)
		}
	})
}

func TestInferenceIsFound(t *testing.T) {
	for path, want := range map[string][2]string{"/v2/models/m/infer": {"m", ""}, "/v2/models/m.x-1/versions/12/infer": {"m.x-1", "12"}} {
		model, version, ok := inference(httptest.NewRequest(http.MethodPost, path, nil))
		if got := [2]string{model, version}; got != want || !ok {
			t.Errorf("%s: got %q, %v", path, got, ok)
		}
	}
}
