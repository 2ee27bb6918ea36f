package pack

import (
	"runtime"
	"strings"
	"testing"
)

// makeReader builds a tiny pack whose engine reads any file.
func makeReader(t *testing.T, content string) []byte {
	t.Helper()
	return makePackWith(t, strings.Replace(manifestText(runtime.GOARCH), "{", `{"formats":[{"name":"f","suffixes":[".f"]}],"protocols":[2],`, 1), content)
}

// asked is the version that a user gets, of the pack e.
func (s *Store) asked(t *testing.T, user string) string {
	t.Helper()
	packs, err := s.Candidates(Question{User: user, Suffix: ".f", Protocols: []int{2}})
	if err != nil || len(packs) != 1 {
		t.Fatalf("%+v, %v", packs, err)
	}
	return packs[0].Digest
}

// What runs on a version that another takes the place of keeps it until it has moved, also
// across a restart of the daemon.
func TestOlderVersionIsKept(t *testing.T) {
	s, c, _ := openTestStore(t)
	one, two, three := makeReader(t, "one"), makeReader(t, "two"), makeReader(t, "three")
	_, err := c.install(s, one)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	users := map[string][]string{digestOf(one): {"Model/a", "Model/b"}}
	s.Users = func(_, digest string) []string { return users[digest] }
	install := func(raw []byte) {
		t.Helper()
		if _, err := c.install(s, raw); err != nil {
			t.Fatal(err)
		}
	}
	install(two)
	again := s.as(t, "")
	again.Users = s.Users
	s = again
	s.holds(t, two, 4)
	if got := s.asked(t, "Model/a"); got != digestOf(one) {
		t.Errorf("the one that runs gets %s", got)
	}
	if got := s.asked(t, "Model/new"); got != digestOf(two) {
		t.Errorf("another one gets %s", got)
	}
	p, dir, err := s.Mount(digestOf(one))
	if err != nil || p.Next != digestOf(two) {
		t.Fatalf("the older version is mounted as %+v, %v", p, err)
	}
	defer unmount(dir)

	// One moves and the other cannot: it stays, with the reason.
	if err := s.Moved("Model/a", digestOf(two)); err != nil {
		t.Fatal(err)
	}
	if err := s.Stay("Model/b", digestOf(one), "it does not load"); err != nil {
		t.Fatal(err)
	}
	if next, why := s.Successor("Model/b", digestOf(one)); next == nil || next.Digest != digestOf(two) || why != "it does not load" {
		t.Errorf("got %+v, %q", next, why)
	}
	if next, _ := s.Successor("Model/a", digestOf(one)); next != nil {
		t.Errorf("one that has moved is to go to %+v", next)
	}
	all, err := s.All()
	if err != nil || len(all) != 2 || all[0].Digest != digestOf(two) || all[1].Stays["Model/b"] != "it does not load" {
		t.Errorf("all: %+v, %v", all, err)
	}

	// A release on trial has its own: the older version counts for the pack before only.
	trial := s.as(t, "1.1", three)
	if err := trial.Stage(t.Context(), "1.1", digestOf(three), sending(three)); err != nil {
		t.Fatal(err)
	}
	if got := trial.asked(t, "Model/b"); got != digestOf(three) {
		t.Errorf("on trial it gets %s", got)
	}
	back := s.as(t, "1.0", three)
	if got := back.asked(t, "Model/b"); got != digestOf(one) {
		t.Errorf("after the rollback it gets %s", got)
	}
	if _, err := back.Settle(); err != nil {
		t.Fatal(err)
	}
	s = back
	s.Users = func(_, digest string) []string { return users[digest] }

	// Yet another version is another chance, for both.
	users = map[string][]string{digestOf(two): {"Model/a"}, digestOf(one): {"Model/b"}}
	install(three)
	for user, from := range map[string][]byte{"Model/a": two, "Model/b": one} {
		if next, why := s.Successor(user, digestOf(from)); next == nil || next.Digest != digestOf(three) || why != "" {
			t.Errorf("%s: %+v, %q", user, next, why)
		}
	}
	s.holds(t, three, 6)
	for _, user := range []string{"Model/a", "Model/b"} {
		if err := s.Moved(user, digestOf(three)); err != nil {
			t.Fatal(err)
		}
	}
	s.holds(t, three, 2)

	// Back to an older version that is kept, and away with all.
	users = map[string][]string{digestOf(three): {"Model/a"}}
	install(one)
	users = map[string][]string{digestOf(one): {"Model/b"}}
	install(three)
	if got := s.asked(t, "Model/a"); got != digestOf(three) {
		t.Errorf("one whose version is installed again gets %s", got)
	}
	s.holds(t, three, 4)
	if err := s.Remove("e"); err != nil {
		t.Fatal(err)
	}
	if all, err := s.All(); err != nil || len(all) != 0 {
		t.Errorf("after the removal: %+v, %v", all, err)
	}
}

// A release that goes back to a version which is kept has it without a download.
func TestReleasePinsKeptVersion(t *testing.T) {
	s, c, _ := openTestStore(t)
	one, two := makePack(t, runtime.GOARCH, "one"), makePack(t, runtime.GOARCH, "two")
	_, err := c.install(s, one)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	s.Users = func(string, string) []string { return []string{"Model/a"} }
	if _, err := c.install(s, two); err != nil {
		t.Fatal(err)
	}
	s = s.as(t, "1.0", one)
	if err := s.Stage(t.Context(), "0.9", digestOf(one), nil); err != nil {
		t.Fatal(err)
	}
	old := s.as(t, "0.9", one)
	if _, err := old.Settle(); err != nil {
		t.Fatal(err)
	}
	old.holds(t, one, 2)
}

func TestRecordsOfKeptVersions(t *testing.T) {
	for file, want := range map[string]string{"e.0123456789abcdef.kept": "e", "llama.cpp.0123456789abcdef.kept": "llama.cpp", "e.json": "e", "e.staged": "e", "kept": "", ".kept": "", "x.kept": "", strings.Repeat("a", 64) + ".erofs": ""} {
		if got, ok := recordOf(file); ok && got != want || !ok && want != "" {
			t.Errorf("%s: %q, %v", file, got, ok)
		}
	}
}
