// Package bucket owns models in S3 buckets: which objects are the files of a model,
// and downloads of them that go on after a cut. What is downloaded has the digest
// that the same file or folder has when it is uploaded. It follows no redirects,
// so that credentials reach only the server that they are for, and it stores none.
// It depends on minio-go for the protocol.
package bucket
