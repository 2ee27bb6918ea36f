package boot

import (
	"os"

	"oscine.dev/oscine/internal/release"
)

// envFacts is the environment variable by which stage 1 hands the facts of the
// boot to PID 1.
const envFacts = "OSCINE_BOOT"

// handOver is the environment of PID 1.
func handOver(facts release.Facts) []string { return []string{envFacts + "=" + facts.String()} }

// receive is what stage 1 handed over.
func receive() release.Facts { return release.ParseFacts(os.Getenv(envFacts)) }

// factsNow is what the daemon reads in FactsFile.
func factsNow(facts release.Facts, good bool) []byte {
	facts.Trial, facts.Good, facts.Kernel = facts.Counted() && !good, good, uptime()
	return []byte(facts.String())
}
