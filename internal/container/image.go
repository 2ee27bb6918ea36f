package container

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/archive"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a stored image.
type Image struct {
	Name      string // full reference
	Digest    string // of the manifest or index
	SizeBytes int64  // packed
	Platform  string // such as linux/arm64/v8
	Created   time.Time
}

// Import stores the images of an OCI or Docker archive, packed or not, all of
// them or none. Images without a name get localhost/imported:DIGEST.
// Errors: ErrTooLarge, ErrPlatform.
func (r *Runtime) Import(ctx context.Context, tarball io.Reader) ([]Image, error) {
	if err := r.config.Room(); err != nil {
		return nil, fmt.Errorf("import image archive: %w", err)
	}
	ctx = r.context(ctx)
	checked, stop := checkArchive(tarball, r.config.ImageBytes)
	defer stop()
	dest := &destination{bound: r.config.ImageBytes, imported: true}
	source := archive.NewImageImportStream(checked, "application/x-tar")
	result, err := r.transfer(ctx, source, dest, nil)
	if err != nil {
		return nil, fmt.Errorf("import image archive: %w", err)
	}
	return result, nil
}

// Pull fetches an image from its registry. If given, progress gets lines for people. Registries on this very
// host may speak plain HTTP. If given, login has the credentials for registries. Errors: ErrDenied, ErrNotFound, ErrTooLarge, ErrPlatform.
func (r *Runtime) Pull(ctx context.Context, ref string, login Login, progress func(string)) (Image, error) {
	ctx = r.context(ctx)
	name, err := normalize(ref)
	if err != nil {
		return Image{}, err
	}
	// The verifier asks again; asking first spares a denied registry the call.
	if err := prefixes(r.config.Allow).check("pull", name); err != nil {
		return Image{}, err
	}
	if err := r.config.Room(); err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", name, err)
	}
	source, err := registry.NewOCIRegistry(ctx, name, append(login.options(), registry.WithHostDir(r.config.hostsDir()))...)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", name, err)
	}
	result, err := r.transfer(ctx, source, &destination{name: name, bound: r.config.ImageBytes}, progress)
	if err != nil {
		return Image{}, named("pull "+name, err)
	}
	return result[0], nil
}

// Login returns the username and password for the host of a registry, "" where
// there are none.
type Login func(host string) (username, password string)

func (l Login) options() []registry.Opt {
	if l == nil {
		return nil
	}
	return []registry.Opt{registry.WithCredentials(l)}
}

// GetCredentials implements registry.CredentialHelper.
func (l Login) GetCredentials(_ context.Context, _, host string) (registry.Credentials, error) {
	username, password := l(host)
	return registry.Credentials{Host: host, Username: username, Secret: password}, nil
}

// transfer brings content here, checks it, and only then records its names.
// Until it does, a lease keeps the content; whatever happens to the lease,
// content without a name is swept.
func (r *Runtime) transfer(ctx context.Context, source any, dest *destination, progress func(string)) ([]Image, error) {
	lease, err := r.engine.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(24*time.Hour))
	if err != nil {
		return nil, err
	}
	defer r.sweep()
	defer r.engine.leases.Delete(context.WithoutCancel(ctx), lease)
	ctx = leases.WithLease(ctx, lease.ID)
	budget := new(atomic.Int64)
	budget.Store(r.config.UnpackBytes)
	ctx = context.WithValue(ctx, budgetKey{}, budget)

	var opts []transfer.Opt
	if progress != nil {
		opts = append(opts, transfer.WithProgress(tell(progress)))
	}
	if err := r.engine.transfer.Transfer(ctx, source, dest, opts...); err != nil {
		return nil, err
	}
	if len(dest.found) == 0 {
		return nil, fmt.Errorf("there is no image in it")
	}
	for _, image := range dest.found {
		if dest.imported {
			if err := prefixes(r.config.Allow).check("import", image.Name); err != nil {
				return nil, err
			}
		}
		if err := r.checkPlatform(ctx, image); err != nil {
			return nil, err
		}
	}
	var result []Image
	for _, image := range dest.found {
		stored, err := r.record(ctx, image)
		if err != nil {
			return nil, err
		}
		result = append(result, r.describe(ctx, stored))
	}
	return result, nil
}

// checkPlatform returns ErrPlatform unless the image runs on this machine.
func (r *Runtime) checkPlatform(ctx context.Context, image images.Image) error {
	want := platforms.DefaultSpec()
	manifest, err := images.Manifest(ctx, r.engine.content, image.Target, platforms.OnlyStrict(want))
	if err == nil {
		var got ocispec.Platform
		if got, err = images.ConfigPlatform(ctx, r.engine.content, manifest.Config); err != nil {
			return fmt.Errorf("%s: configuration: %w", image.Name, err)
		}
		if platforms.OnlyStrict(want).Match(got) {
			return nil
		}
		return wrongPlatform(image.Name, got)
	}
	if !errdefs.IsNotFound(err) {
		return fmt.Errorf("%s: %w", image.Name, err)
	}
	all, err := images.Platforms(ctx, r.engine.content, image.Target)
	if err != nil {
		all = nil // then the error leaves them out
	}
	return wrongPlatform(image.Name, all...)
}

// wrongPlatform says which platforms an image is for.
func wrongPlatform(name string, have ...ocispec.Platform) error {
	var list []string
	for _, p := range have {
		list = append(list, platforms.Format(p))
	}
	if len(list) == 0 {
		list = []string{"others"}
	}
	return fmt.Errorf("%s %w: it is for %s, this node is %s", name, ErrPlatform, strings.Join(list, ", "), platforms.DefaultString())
}

func (r *Runtime) record(ctx context.Context, image images.Image) (images.Image, error) {
	stored, err := r.engine.images.Create(ctx, image)
	if errdefs.IsAlreadyExists(err) {
		stored, err = r.engine.images.Update(ctx, image, "target")
	}
	return stored, err
}

func (r *Runtime) describe(ctx context.Context, image images.Image) Image {
	matcher := platforms.OnlyStrict(platforms.DefaultSpec())
	result := Image{Name: image.Name, Digest: image.Target.Digest.String(), Created: image.CreatedAt}
	// What cannot be read of a damaged image is left out: it must stay removable.
	result.SizeBytes, _ = image.Size(ctx, r.engine.content, matcher)
	if manifest, err := images.Manifest(ctx, r.engine.content, image.Target, matcher); err == nil {
		if p, err := images.ConfigPlatform(ctx, r.engine.content, manifest.Config); err == nil {
			result.Platform = platforms.Format(p)
		}
	}
	return result
}

// Images lists stored images by name.
func (r *Runtime) Images(ctx context.Context) ([]Image, error) {
	ctx = r.context(ctx)
	all, err := r.engine.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var result []Image
	for _, image := range all {
		result = append(result, r.describe(ctx, image))
	}
	slices.SortFunc(result, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return result, nil
}

// RemoveImage forgets an image and frees what no container and no other image
// uses. Errors: ErrNotFound.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	ctx = r.context(ctx)
	name, err := normalize(ref)
	if err != nil {
		return err
	}
	if err := r.engine.images.Delete(ctx, name); err != nil {
		return named("image "+name, err)
	}
	r.sweep()
	return nil
}

// image finds a stored image by reference.
func (r *Runtime) image(ctx context.Context, ref string) (images.Image, error) {
	name, err := normalize(ref)
	if err != nil {
		return images.Image{}, err
	}
	image, err := r.engine.images.Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return image, fmt.Errorf("image %s is not on this node: %w: pull it, or import its archive", name, ErrNotFound)
	}
	return image, err
}

// sweep frees what nothing refers to. A failure costs disk space until the
// next sweep, nothing else.
func (r *Runtime) sweep() {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	ctx := r.context(context.Background())
	if _, err := r.engine.db.GarbageCollect(ctx); err != nil {
		r.log.Warn("free unused image content", "error", err)
	}
}

// destination takes the images of a transfer without recording them.
type destination struct {
	name     string // of a pulled image
	imported bool
	bound    int64

	taken atomic.Int64
	found []images.Image
}

// UnpackPlatforms asks for layers to be unpacked as they come.
func (d *destination) UnpackPlatforms() []transfer.UnpackConfiguration {
	return []transfer.UnpackConfiguration{{Platform: platforms.DefaultSpec(), Snapshotter: snapshotterName}}
}

// maxLayers is what overlayfs can stack within a page of mount options, and
// more than any sensible image has.
const maxLayers = 128

// ImageFilter keeps this machine's platform and the bounds, and labels content
// so that what an image refers to stays with it.
func (d *destination) ImageFilter(next images.HandlerFunc, store content.Store) images.HandlerFunc {
	bounded := func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := next(ctx, desc)
		if err != nil {
			return nil, err
		}
		if images.IsManifestType(desc.MediaType) && len(children) > maxLayers+1 {
			return nil, fmt.Errorf("manifest %s has %d layers, at most %d can be used: %w", desc.Digest, len(children)-1, maxLayers, ErrTooLarge)
		}
		if images.IsIndexType(desc.MediaType) && !d.imported && !slices.ContainsFunc(children, d.fits) {
			var have []ocispec.Platform
			for _, child := range children {
				have = append(have, *child.Platform)
			}
			return nil, wrongPlatform(d.name, have...)
		}
		for _, child := range children {
			if child.Size < 0 || d.taken.Add(child.Size) > d.bound && images.IsManifestType(desc.MediaType) {
				return nil, fmt.Errorf("manifest %s: %w for this node's bound of %d bytes", desc.Digest, ErrTooLarge, d.bound)
			}
		}
		return children, nil
	}
	wanted := platforms.OnlyStrict(platforms.DefaultSpec())
	labelled := images.SetChildrenMappedLabels(store, images.HandlerFunc(bounded), nil)
	if d.imported {
		return labelled // an archive has all its content here; checkPlatform judges
	}
	return images.LimitManifests(images.FilterPlatforms(labelled, wanted), wanted, 1)
}

// fits tells whether a child of an index may be for this machine.
func (d *destination) fits(child ocispec.Descriptor) bool {
	return child.Platform == nil || platforms.OnlyStrict(platforms.DefaultSpec()).Match(*child.Platform)
}

// Store takes note of an image.
func (d *destination) Store(_ context.Context, desc ocispec.Descriptor, _ images.Store) ([]images.Image, error) {
	name := d.name
	if d.imported {
		if desc.Annotations["io.containerd.import.ref-source"] == "" {
			return nil, errdefs.ErrNotFound // the archive's index, not an image
		}
		delete(desc.Annotations, "io.containerd.import.ref-source")
		name = importedName(desc)
	}
	image := images.Image{Name: name, Target: desc}
	d.found = append(d.found, image)
	return []images.Image{image}, nil
}

// importedName is what the archive calls the image if that is a whole
// reference, and else made from its digest.
func importedName(desc ocispec.Descriptor) string {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		value := desc.Annotations[key]
		if !strings.ContainsAny(value, "/:") {
			continue
		}
		if name, err := normalize(value); err == nil {
			return name
		}
	}
	return "localhost/imported:" + desc.Digest.Encoded()[:12]
}
