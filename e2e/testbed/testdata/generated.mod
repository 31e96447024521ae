module testbed.local/kubernetes

go 1.26.0

require k8s.io/kubernetes v1.30.14
replace k8s.io/api => k8s.io/api v0.30.14
replace k8s.io/client-go => k8s.io/client-go v0.30.14
