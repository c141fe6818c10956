#!/usr/bin/env bash
# `executor` is what Spark starts a pod with, and SPARK_* variables; pip's Spark has no script for it. All else is a command.
set -euo pipefail

if [ "${1:-}" != executor ]; then
  exec "$@"
fi

# Options of the JVM come as SPARK_JAVA_OPT_0, _1, ...
options=()
for ((number = 0; ; number++)); do
  name="SPARK_JAVA_OPT_$number"
  [ -n "${!name+given}" ] || break
  options+=("${!name}")
done

exec java "${options[@]}" "-Xmx$SPARK_EXECUTOR_MEMORY" \
  -cp "${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}${SPARK_CONF_DIR:-$SPARK_HOME/conf}:$SPARK_HOME/jars/*" \
  org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
  --driver-url "$SPARK_DRIVER_URL" \
  --executor-id "$SPARK_EXECUTOR_ID" \
  --cores "$SPARK_EXECUTOR_CORES" \
  --app-id "$SPARK_APPLICATION_ID" \
  --hostname "$SPARK_EXECUTOR_POD_IP" \
  --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
  --podName "$SPARK_EXECUTOR_POD_NAME"
