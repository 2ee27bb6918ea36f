package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const hash64 = "fd701f63aa0000000000000000000000000000000000000000000000000000ff"

func TestFindVerity(t *testing.T) {
	for _, test := range []struct {
		line    string
		blocks  uint64
		salt    int
		problem string
	}{
		{"quiet oscine.verity=" + hash64 + ",0011,1468 panic=5", 1468, 2, ""},
		{"oscine.verity=" + hash64 + ",-,1\n", 1, 0, ""},
		{"oscine.verity=" + hash64 + "," + strings.Repeat("00", 256) + ",1", 1, 256, ""},
		{"oscine.verity=" + hash64 + ",00,1 oscine.verity=" + hash64 + ",00,2", 2, 1, ""},
		{"quiet", 0, 0, "is missing"},
		{"oscine.verity=", 0, 0, "must be ROOTHASH,SALT,BLOCKS"},
		{"oscine.verity=" + hash64 + ",00", 0, 0, "must be ROOTHASH,SALT,BLOCKS"},
		{"oscine.verity=abc,00,1", 0, 0, "root hash"},
		{"oscine.verity=" + hash64 + ",zz,1", 0, 0, "salt"},
		{"oscine.verity=" + hash64 + ",,1", 0, 0, "salt"},
		{"oscine.verity=" + hash64 + "," + strings.Repeat("00", 257) + ",1", 0, 0, "salt"},
		{"oscine.verity=" + hash64 + ",00,0", 0, 0, "number of blocks"},
		{"oscine.verity=" + hash64 + ",00,-1", 0, 0, "number of blocks"},
		{"oscine.verity=" + hash64 + ",00,18446744073709551615", 0, 0, "number of blocks"},
	} {
		v, err := FindVerity(test.line)
		if test.problem != "" {
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("%q: got error %v, want one with %q", test.line, err, test.problem)
			}
			continue
		}
		if err != nil || v.Blocks != test.blocks || len(v.Salt) != test.salt || hex.EncodeToString(v.RootHash[:]) != hash64 {
			t.Errorf("%q: got %d blocks, salt of %d, error %v", test.line, v.Blocks, len(v.Salt), err)
		}
	}
	if _, err := FindVerity("quiet"); !errors.Is(err, ErrNoVerity) {
		t.Errorf("none: got %v", err)
	}
}

func FuzzFindVerity(f *testing.F) {
	f.Add("oscine.verity=" + hash64 + ",0011,1468")
	f.Add("oscine.verity=" + hash64 + ",-,1")
	f.Fuzz(func(t *testing.T, line string) {
		v, err := FindVerity(line)
		if err != nil {
			return
		}
		again, err := FindVerity("quiet " + v.Argument())
		if diff := cmp.Diff(v, again); diff != "" || err != nil {
			t.Errorf("%q read again: %v\n%s", line, err, diff)
		}
	})
}

// TestMatch has a root of two blocks with a tree of one block behind, and
// veritysetup's superblock between or not.
func TestMatch(t *testing.T) {
	tree := bytes.Repeat([]byte{7}, BlockSize)
	v := Verity{Salt: []byte{1, 2}, Blocks: 2, RootHash: sha256.Sum256(append([]byte{1, 2}, tree...))}
	data, super := make([]byte, 2*BlockSize), append([]byte("verity\x00\x00"), make([]byte, BlockSize-8)...)
	for want, raw := range map[uint64][]byte{2: slices.Concat(data, tree), 3: slices.Concat(data, super, tree)} {
		if start, ok, err := v.Match(bytes.NewReader(raw)); start != want || !ok || err != nil {
			t.Errorf("got %d, %t, %v, want the tree at %d", start, ok, err, want)
		}
		raw[len(raw)-1] ^= 1
		if _, ok, err := v.Match(bytes.NewReader(raw)); ok || err != nil {
			t.Errorf("flipped bit: got %t, %v, want a refusal", ok, err)
		}
		if _, _, err := v.Match(bytes.NewReader(raw[:BlockSize])); err == nil {
			t.Error("short partition: got no error")
		}
	}
}

func TestParseEntry(t *testing.T) {
	for _, test := range []struct {
		file    string
		ok      bool
		want    Entry
		version string
		bad     bool
	}{
		{"oscine_0.1+3.efi", true, Entry{"oscine_0.1", true, 3, 0}, "0.1", false},
		{"oscine_0.1+2-1.efi", true, Entry{"oscine_0.1", true, 2, 1}, "0.1", false},
		{"oscine_0.1+0-3.efi", true, Entry{"oscine_0.1", true, 0, 3}, "0.1", true},
		{"oscine_0.1+00.EFI", true, Entry{"oscine_0.1", true, 0, 0}, "0.1", true},
		{"oscine_0.1.efi", true, Entry{Title: "oscine_0.1"}, "0.1", false},
		{"a+1+2.efi", true, Entry{"a+1", true, 2, 0}, "", false},
		{"a+b.efi", true, Entry{Title: "a+b"}, "", false},
		{"a+1-.efi", true, Entry{Title: "a+1-"}, "", false},
		{"a+1-2-3.efi", true, Entry{Title: "a+1-2-3"}, "", false},
		{"a+.efi", true, Entry{Title: "a+"}, "", false},
		{"a+2147483648.efi", true, Entry{Title: "a+2147483648"}, "", false},
		{"+3.efi", true, Entry{Title: "+3"}, "", false},
		{"a+1", false, Entry{}, "", false},
		{".efi", false, Entry{}, "", false},
		{"a/b.efi", false, Entry{}, "", false},
		{"", false, Entry{}, "", false},
	} {
		got, ok := ParseEntry(test.file)
		if diff := cmp.Diff(test.want, got); diff != "" || ok != test.ok || got.Version() != test.version || got.Bad() != test.bad {
			t.Errorf("%q: got %t, version %q, bad %t (-want +got):\n%s", test.file, ok, got.Version(), got.Bad(), diff)
		}
	}
}

func TestLifeOfAnEntry(t *testing.T) {
	e := NewEntry("oscine", "0.2.0")
	for _, step := range []struct{ got, want string }{
		{e.File(), "oscine_0.2.0+3.efi"},
		{e.Good().File(), "oscine_0.2.0.efi"},
		{e.Good().Demoted(4).File(), "oscine_0.2.0+0-4.efi"},
		{e.Demoted(0).File(), "oscine_0.2.0+0-1.efi"},
	} {
		if step.got != step.want {
			t.Errorf("got %s, want %s", step.got, step.want)
		}
	}
	if !e.Good().Demoted(1).Bad() || e.Bad() || e.Good().Bad() {
		t.Error("only a demoted image is bad")
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add("oscine_0.1+2-1.efi")
	f.Add("a+0-0.EFI")
	f.Fuzz(func(t *testing.T, file string) {
		e, ok := ParseEntry(file)
		if !ok {
			return
		}
		if again, ok := ParseEntry(e.File()); !ok || again != e {
			t.Errorf("%q: got %+v, and from %q %+v", file, e, e.File(), again)
		}
		if e.Counted && (e.Left < 0 || e.Done < 0) {
			t.Errorf("%q: got %+v", file, e)
		}
	})
}

func TestFacts(t *testing.T) {
	want := Facts{
		Slot: PartitionRootB, Disk: "vda", Data: "vda4", Image: "EFI/Linux/oscine_0.1+2-1.efi", Trial: true, Good: false,
		Stage1: 350 * time.Millisecond, Kernel: 2 * time.Second,
	}
	if diff := cmp.Diff(want, ParseFacts(want.String())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !want.Counted() || (Facts{Image: "EFI/Linux/oscine_0.1.efi"}).Counted() || (Facts{}).Counted() {
		t.Error("only an image with a boot counter is counted")
	}
	odd := Facts{Image: "a\nslot=root-a\x1b"}
	if got := ParseFacts(odd.String()); got.Slot != "" || got.Image != "a?slot=root-a?" {
		t.Errorf("a line break in a value: got %+v", got)
	}
	if got := ParseFacts("later=1\nstage1=-5\nkernel=x\ntrial=yes\nslot"); got != (Facts{}) {
		t.Errorf("lines without sense: got %+v", got)
	}
}

func FuzzParseFacts(f *testing.F) {
	f.Add("slot=root-a\ndisk=vda\nstage1=7\n")
	f.Fuzz(func(t *testing.T, text string) {
		once := ParseFacts(ParseFacts(text).String())
		if again := ParseFacts(once.String()); again != once {
			t.Errorf("%q: got %+v, then %+v", text, once, again)
		}
	})
}

func TestParseNotification(t *testing.T) {
	for text, want := range map[string]Notification{
		"READY=1":                              {Ready: true},
		"READY=1\nWATCHDOG=1\nSTATUS=up\n":     {Ready: true, Watchdog: true, Status: "up"},
		"STOPPING=1\nX_OSCINE=reboot":          {Stopping: true, Request: RequestReboot},
		"X_OSCINE=poweroff":                    {Request: RequestPowerOff},
		"X_OSCINE=format":                      {},
		"READY=1\nX_OSCINE_TRIAL=pending":      {Ready: true, Trial: TrialPending},
		"X_OSCINE_TRIAL=good":                  {Trial: TrialGood},
		"STATUS=no\nX_OSCINE_TRIAL=failed":     {Status: "no", Trial: TrialFailed},
		"X_OSCINE_TRIAL=maybe":                 {},
		"READY=0\nREADY=\nready=1\n=1\n\n\x00": {},
		"":                                     {},
	} {
		if diff := cmp.Diff(want, ParseNotification(text)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	if got := (Notification{Ready: true, Status: "two\nlines", Request: RequestReboot}).String(); got != "READY=1\nSTATUS=two lines\nX_OSCINE=reboot" {
		t.Errorf("got %q", got)
	}
}

func FuzzParseNotification(f *testing.F) {
	f.Add("READY=1\nSTATUS=x\nX_OSCINE=reboot\nX_OSCINE_TRIAL=good")
	f.Fuzz(func(t *testing.T, text string) {
		n := ParseNotification(text)
		if again := ParseNotification(n.String()); again != n || len(n.Status) > MaxStatus {
			t.Errorf("%q: got %+v, then %+v", text, n, again)
		}
	})
}

func TestPartitions(t *testing.T) {
	for _, name := range Partitions() {
		want := name == PartitionRootA || name == PartitionRootB
		if IsSlot(name) != want {
			t.Errorf("%s: slot %t", name, !want)
		}
	}
}

// The size of data with its hash tree tells how much of it is data.
func TestDataBlocks(t *testing.T) {
	for _, blocks := range []int{1, 2, 127, 128, 129, 1000, 16383, 16384, 16385, 20000} {
		tree, v, err := HashTree(bytes.NewReader(make([]byte, blocks*BlockSize)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DataBlocks(int64(blocks*BlockSize + len(tree))); err != nil || got != v.Blocks {
			t.Errorf("%d blocks: got %d, %v", blocks, got, err)
		}
	}
	for _, size := range []int64{0, BlockSize, 2*BlockSize + 1, -BlockSize} {
		if got, err := DataBlocks(size); err == nil {
			t.Errorf("%d bytes: got %d blocks", size, got)
		}
	}
}

func TestVerityTable(t *testing.T) {
	v := Verity{Blocks: 5}
	want := "1 254:2 254:2 4096 4096 5 5 sha256 " + strings.Repeat("00", 32) + " -"
	if got := v.Table("254:2", 5); got != want {
		t.Errorf("table: got %q, want %q", got, want)
	}
	if got := v.Table("254:2", 5, "panic_on_corruption"); got != want+" 1 panic_on_corruption" {
		t.Errorf("table with an option: got %q", got)
	}
}

func TestReadVerity(t *testing.T) {
	data := bytes.Repeat([]byte{7}, 200*BlockSize) // two levels
	tree, want, err := HashTree(bytes.NewReader(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadVerity(bytes.NewReader(append(data, tree...)), 200, nil)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	again, err := ParseVerity(got.String())
	if diff := cmp.Diff(want, again); err != nil || diff != "" {
		t.Errorf("parsed from %s: %v, (-want +got):\n%s", got, err, diff)
	}
	if _, err := ReadVerity(bytes.NewReader(data), 200, nil); err == nil {
		t.Error("data without a tree was given a name")
	}
}
