package runtime_test

import (
	"testing"
)

func TestHello(t *testing.T) {
	w := load(t, `export default { fetch(request) { return new Response("hello " + request.url); } }`)
	if got := w.get(); got != "hello http://t.localhost/" {
		t.Error(got)
	}
}
