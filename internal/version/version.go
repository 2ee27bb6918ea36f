package version

// Version is the release, as git describes it; -ldflags -X sets it.
var Version = "devel"
