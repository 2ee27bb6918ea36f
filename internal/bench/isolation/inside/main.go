package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"oscine.dev/oscine/internal/bench/guest"
	"oscine.dev/oscine/internal/bench/isolation/figure"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/isolate"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "child" {
		if err := latency.RunChild(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "model" {
		os.Exit(runModel(os.Args[2]))
	}
	guest.Main(func() int {
		if err := measure(context.Background()); err != nil {
			fmt.Println("error:", err)
			return 1
		}
		return 0
	})
}

// measure runs what stock Linux offers before the product has set anything,
// then the product's classes.
func measure(ctx context.Context) error {
	seconds, err := strconv.Atoi(os.Getenv("ISOLATION_SECONDS"))
	if err != nil {
		return fmt.Errorf("ISOLATION_SECONDS: %w", err)
	}
	b := &bench{ctx: ctx, duration: time.Duration(seconds) * time.Second, cpus: runtime.NumCPU()}
	if err := guest.WaitIdle(time.Minute); err != nil {
		return err
	}
	if os.Getenv("ISOLATION_STALL") == "1" {
		return b.stall()
	}
	if os.Getenv("ISOLATION_COST") == "1" {
		return b.cost()
	}
	if os.Getenv("ISOLATION_SERVED") == "1" {
		return errors.Join(b.servedBoth(), b.schedExt())
	}
	for _, c := range stock() {
		if err := b.latency(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for _, c := range stockRequests() {
		if err := b.requests(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if b.iso, err = isolate.Open(isolate.Options{Own: true}); err != nil {
		return err
	}
	for _, g := range b.iso.Gaps() {
		fmt.Println("gap:", g)
	}
	for _, c := range classes(b.cpus) {
		if err := b.class(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if err := b.urgentRequests(); err != nil {
		return err
	}
	if err := b.servedBoth(); err != nil {
		return err
	}
	return b.schedExt()
}

// print hands a figure to the outside.
func print(f figure.Figure) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s%s\n", figure.Mark, raw)
	return err
}
