// Package buckettest runs an S3 server for tests: gofakes3 in memory, which verifies
// signatures and conditions, with the faults that a test sets. Production code never
// imports it.
package buckettest
