// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// APIVersion and Kind are the type of a reservation file.
const (
	APIVersion = guardian.Group + "/v1alpha1"
	Kind       = "Reservation"
)

// ErrInvalid means that a file is not a valid reservation.
var ErrInvalid = errors.New("invalid reservation")

// The chart needs a copy, because Helm cannot read files outside the chart's directory. It grants its jobs the permissions that
// these manifests need.
//
//go:generate cp apigw-ingress.yaml ../../charts/apigw-guardian/files/apigw-ingress.yaml
//go:embed apigw-ingress.yaml
var builtIn []byte

// file is the format of a reservation file.
type file struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   fileMeta `json:"metadata"`
	Spec       fileSpec `json:"spec"`
}

type fileMeta struct {
	Name string `json:"name"`
}

type fileSpec struct {
	Owner     string         `json:"owner"`
	Resources []fileResource `json:"resources"`
	// Exemptions are optional.
	Exemptions []Exemption `json:"exemptions,omitempty"`
}

type fileResource struct {
	// Resource is the plural name of the kind. If it is empty, the plural is guessed by the rules of apimachinery.
	Resource   string         `json:"resource,omitempty"`
	NamePrefix string         `json:"namePrefix,omitempty"`
	Manifest   map[string]any `json:"manifest"`
}

// BuiltIn returns the built-in set: the resources that API Gateway reserves.
func BuiltIn() (*Set, error) { return join(nil) }

// Load returns the built-in set plus the reservations in dir, one per file. A file with the name of the built-in reservation replaces
// it. An empty dir adds none. Load ignores names that start with a dot, which mounted ConfigMaps have. Any other file must end in .yaml,
// .yml or .json. The error names the file and the path of the first mistake. It is ErrInvalid, ErrOverlap, or an error of package fs.
func Load(dir string) (*Set, error) {
	if dir == "" {
		return BuiltIn()
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the directory of reservations: %w", err)
	}
	var reservations []*Reservation
	for _, item := range files {
		if strings.HasPrefix(item.Name(), ".") {
			continue
		}
		reservation, err := loadFile(filepath.Join(dir, item.Name()))
		if err != nil {
			return nil, err
		}
		reservations = append(reservations, reservation)
	}
	return join(reservations)
}

// LoadFiles is Load for files in memory, by their names. source is where they come from, for messages.
func LoadFiles(source string, files map[string]string) (*Set, error) {
	var reservations []*Reservation
	for _, name := range slices.Sorted(maps.Keys(files)) {
		reservation, err := Parse(source+"/"+name, []byte(files[name]))
		if err != nil {
			return nil, err
		}
		reservations = append(reservations, reservation)
	}
	return join(reservations)
}

// join adds reservations to the built-in one, or replaces it by the first one of its name.
func join(reservations []*Reservation) (*Set, error) {
	builtIn, err := Parse("built-in", builtIn)
	if err != nil {
		return nil, err
	}
	builtIn.BuiltIn = true
	all := []*Reservation{builtIn}
	for _, reservation := range reservations {
		if reservation.Name != builtIn.Name || all[0] != builtIn {
			all = append(all, reservation)
			continue
		}
		if err := reservation.replace(builtIn); err != nil {
			return nil, err
		}
		all[0] = reservation
	}
	return NewSet(all...)
}

// replace makes the reservation the built-in one. It may change the manifests, but must leave no resource unprotected.
func (r *Reservation) replace(builtIn *Reservation) error {
	r.BuiltIn = true
	for _, resource := range builtIn.Resources {
		isSame := func(other *Resource) bool { return other.String() == resource.String() }
		if !slices.ContainsFunc(r.Resources, isSame) {
			return fmt.Errorf("%s: spec.resources: it replaces the built-in reservation %q and must reserve %s as well: %w",
				r.Source, builtIn.Name, resource, ErrInvalid)
		}
	}
	return nil
}

func loadFile(path string) (*Reservation, error) {
	if !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
		return nil, fmt.Errorf("%s: the name of a reservation file ends in .yaml, .yml or .json: rename or remove it: %w", path, ErrInvalid)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read reservation: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file: %w: %w", path, ErrInvalid, fs.ErrInvalid)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read reservation: %w", err)
	}
	return Parse(path, data)
}

// Parse reads one reservation. Its errors are ErrInvalid and start with source, the path of the file.
func Parse(source string, data []byte) (*Reservation, error) {
	f, mistakes, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", source, ErrInvalid, err)
	}
	for _, mistake := range validate(f) {
		mistakes = append(mistakes, mistake)
	}
	if len(mistakes) > 0 {
		return nil, fmt.Errorf("%s: %w: %w", source, ErrInvalid, errors.Join(mistakes...)) // one line for each
	}
	reservation := &Reservation{Name: f.Metadata.Name, Owner: f.Spec.Owner, Source: source, Exemptions: f.Spec.Exemptions}
	for i, r := range f.Spec.Resources {
		resource, err := newResource(f, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w: %w", source, resourcesPath().Index(i).Child("manifest"), ErrInvalid, err)
		}
		reservation.Resources = append(reservation.Resources, resource)
	}
	return reservation, nil
}

// fields says which fields a file may have.
const fields = "a file has apiVersion, kind, metadata.name, spec.owner, spec.resources and spec.exemptions; a resource has resource, " +
	"namePrefix and manifest, and its object is the manifest; " +
	"an exemption has user, serviceAccount or group, and operations, reason and until"

// decode also returns unknown and repeated fields: a misspelled field could leave a resource unprotected.
func decode(data []byte) (f *file, mistakes []error, err error) {
	document, err := onlyDocument(data)
	if err != nil {
		return nil, nil, err
	}
	f = &file{}
	mistakes, err = json.UnmarshalStrict(document, f)
	if len(mistakes) > 0 {
		mistakes = append(mistakes, errors.New(fields))
	}
	return f, mistakes, err
}

// endOfDocument is the other mark that ends a YAML document.
var endOfDocument = regexp.MustCompile(`(?m)^\.\.\.\s*$`)

// onlyDocument returns the YAML document as JSON. A YAML decoder ignores every document after the first, so their resources would be
// unprotected.
func onlyDocument(data []byte) ([]byte, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(endOfDocument.ReplaceAll(data, []byte("---")))))
	var documents [][]byte
	for {
		part, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		document, err := yaml.YAMLToJSONStrict(part)
		if err != nil {
			return nil, err
		}
		if string(document) != "null" {
			documents = append(documents, document)
		}
	}
	if len(documents) != 1 {
		return nil, fmt.Errorf("it has %d YAML documents: write each reservation into a separate file", len(documents))
	}
	return documents[0], nil
}

func newResource(f *file, r fileResource) (*Resource, error) {
	object := unstructured.Unstructured{Object: r.Manifest}
	manifest, err := object.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode as JSON: %w", err)
	}
	gvr, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
	if r.Resource != "" {
		gvr.Resource = r.Resource
	}
	resource := &Resource{
		Reservation: f.Metadata.Name,
		Owner:       f.Spec.Owner,
		GVR:         gvr,
		Kind:        object.GetKind(),
		Namespace:   object.GetNamespace(),
		Name:        object.GetName(),
		NamePrefix:  r.NamePrefix,
		manifest:    manifest,
	}
	if isTokenSecret(object) {
		resource.Account = object.GetAnnotations()[corev1.ServiceAccountNameKey]
	}
	return resource, nil
}

func isTokenSecret(object unstructured.Unstructured) bool {
	secretType, _, _ := unstructured.NestedString(object.Object, "type")
	return object.GetAPIVersion() == "v1" && object.GetKind() == "Secret" &&
		secretType == string(corev1.SecretTypeServiceAccountToken)
}

func resourcesPath() *field.Path { return field.NewPath("spec", "resources") }
