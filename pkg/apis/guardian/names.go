// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package guardian holds the names by which the parts of the product find each other in a cluster.
package guardian

const (
	// Name is the name of the product.
	Name = "apigw-guardian"
	// Group is the API group of the custom resources, and the prefix of all annotations.
	Group = "guardian.apigw.io"
	// FieldManager owns the fields that the product writes.
	FieldManager = Name
	// Namespace is the default namespace of the guard.
	Namespace = Name
	// WebhookConfiguration is the name of the ValidatingWebhookConfiguration.
	WebhookConfiguration = Name
	// Reservation is the name of the built-in reservation.
	Reservation = "apigw-ingress"
	// Replicas is the ConfigMap in the guard's namespace in which each replica notes when it last read the unlocks.
	Replicas = Name + "-replicas"
	// RegistrationPolicy is the ValidatingAdmissionPolicy of the chart that guards the webhook configuration, and its binding.
	RegistrationPolicy = Name + "-registration"
	// RecordsPolicy is the one that guards the audit records.
	RecordsPolicy = Name + "-records"
	// InstallationPolicy is the one that guards the guard's namespace and its definitions.
	InstallationPolicy = Name + "-installation"
	// WebhookDomain ends the name of each webhook.
	WebhookDomain = "apigw-guardian.io"
)

// Annotations of the webhook configuration.
const (
	// CertificateProblemAnnotation says what is wrong with the guard's certificates. It is empty or absent if nothing is.
	CertificateProblemAnnotation = Group + "/certificate-problem"
	// RecordsProblemAnnotation says why the guard cannot store audit records. It is empty or absent if it can.
	RecordsProblemAnnotation = Group + "/records-problem"
	// RegistrationProblemAnnotation says why the webhook configuration does not stay as the guard writes it. It is empty or absent if it does.
	RegistrationProblemAnnotation = Group + "/registration-problem"
	// ReachabilityProblemAnnotation says why the API server cannot call the guard. It is empty or absent if it can.
	ReachabilityProblemAnnotation = Group + "/reachability-problem"
	// RevisionAnnotation holds a digest of the webhooks without their CA bundles. A client that edits the webhooks leaves a wrong digest.
	RevisionAnnotation = Group + "/revision"
	// ReplicaAnnotationPrefix begins the keys that hold the public key of a replica. The ID of the replica follows.
	ReplicaAnnotationPrefix = Group + "/replica-"
	// CAAnnotationPrefix begins the keys that hold the CAs with which a replica serves. The ID of the replica follows.
	CAAnnotationPrefix = Group + "/ca-"
)

// ObjectUIDAnnotation holds the uid that the object of an audit record had before the first of the writes.
const ObjectUIDAnnotation = Group + "/object-uid"

// ProbeAnnotation holds the nonce, on the object of a probe, also of one that only finds out whether API servers reach the guard.
const ProbeAnnotation = Group + "/attack"
