// Command testreport reads what go test -json writes and prints what a person
// needs: a line for each package, the whole output of tests that failed, the
// slowest tests, and every skipped test. It fails where a test failed, and, when
// it is given the list of what continuous integration lacks, where one was skipped
// for a reason that is not on it, so that no test is silently lost.
package main
