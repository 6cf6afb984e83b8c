#!/usr/bin/env bash
# Runs one part of the study, or goes on with it: the same command resumes.
#   bash studies/when_does_dat_help/run.sh primary paper movielens_100k    # or strong, and any data=…
#   bash studies/when_does_dat_help/run.sh parts strong s3rec_beauty
#   bash studies/when_does_dat_help/run.sh dose strong sasrec_movielens_1m # 5, 10, 20, 50 a user
#   bash studies/when_does_dat_help/run.sh report
# BUDGET=8 trials of each variant; dry=true shows the plan of the search alone. Further arguments go to the training, such as
# hydra/launcher=joblib hydra.launcher.n_jobs=2, or hydra/launcher=fused on a GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
out=${TWOTOWER_OUTPUT_DIR:-outputs}/study
budget=${BUDGET:-8}

tuned() { # tuned PART BASE DATA SEEDS VARIANTS [arguments]: search, then confirm
    local folder=$2-$3-$1 base=$2 data=$3 seeds=$4 variants=$5 settings=(search=shared)
    shift 5
    if [ "$base" = strong ]; then settings=(search=strong model.dim=64 model.embedding_dim=64); fi
    "$python" src/train.py -m sweep=search "${settings[@]}" "experiment=study_$base" "data=$data" \
        "variant=$variants" "budget=$budget" "hydra.sweep.dir=$out/search-$folder" "$@"
    if [[ " $* " == *" dry=true "* ]]; then return; fi
    "$python" src/train.py -m sweep=confirm "search=$out/search-$folder" "seeds=$seeds" \
        "hydra.sweep.dir=$out/confirm-$folder" "$@"
}

part=${1:?primary, parts, dose or report}
shift
if [ "$part" = report ]; then
    # The primary contrast alone first: its verdict is not corrected for those of the parts.
    "$python" src/report.py "runs=$out/*-primary" control=dat_lambda0 "output=$out/report-primary" "$@"
    exec "$python" src/report.py "runs=$out" control=dat_lambda0 "output=$out/report" "$@"
fi
base=${1:?paper or strong}
data=${2:?a data set}
shift 2
name=dat
if [ "$base" = strong ]; then name=sasrec_dat; fi
case "$part" in
primary) tuned primary "$base" "$data" 5 "$name,${name}_lambda0" "$@" ;;
parts)
    plain=two_tower cal=dat_cal
    if [ "$base" = strong ]; then plain=sasrec cal=sasrec_dat_lambda3; fi
    tuned parts "$base" "$data" 3 "$plain,${name}_lambda1,${name}_lambda2,$cal,${name}_shuffled,${name}_running_mean" "$@"
    ;;
dose)
    for dose in 5 10 20 50; do
        tuned "dose$dose" "$base" "$data" 3 "$name,${name}_lambda0" "data.max_per_user=$dose" "$@"
    done
    ;;
*)
    echo "unknown part $part: primary, parts, dose or report" >&2
    exit 1
    ;;
esac
