// A correct Adadelta for adadelta-conformance: g++ -O2 -std=c++17 adadelta.cpp -o adadelta, then
// adadelta-conformance run:./adadelta. Put yours into step(). Whatever else you print must go to stderr.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>
using std::string, std::vector;
using Tree = std::map<string, vector<float>>;  // by name: the order of gradients varies
struct Run { Tree theta, e_g2, e_delta2; std::map<string, double> options; };

void step(Run& run, const Tree& grads) {
  const float rho = run.options["rho"], rest = 1 - run.options["rho"], eps = run.options["eps"], lr = run.options["lr"];
  for (auto& [name, g] : grads)
    for (size_t k = 0; k < g.size(); k++) {
      float &e_g2 = run.e_g2[name][k], &e_delta2 = run.e_delta2[name][k];
      e_g2 = rho * e_g2 + rest * g[k] * g[k];
      const float delta = -std::sqrt(e_delta2 + eps) / std::sqrt(e_g2 + eps) * g[k];
      e_delta2 = rho * e_delta2 + rest * delta * delta;
      run.theta[name][k] += lr * delta;
    }
}
// No parser of JSON is needed: the words between the marks are keys and values in a fixed order, such as
// do step run 1 grads name w dtype float32 shape 2 data 0x1.8p+0 -0x1p-2 name b dtype float32 ...
Tree tree(const vector<string>& word, size_t k) {
  Tree out;
  while (k + 1 < word.size() && word[k] == "name") {
    auto& x = out[word[k + 1]];
    for (k += 5; word[k] != "data";) k++;  // behind the shape
    for (k++; k < word.size() && word[k] != "name"; k++) x.push_back(std::stod(word[k]));
  }
  return out;
}
string json(const Tree& tree) {
  string out;
  char number[40];
  for (auto& [name, x] : tree) {
    out += (out.empty() ? "{\"name\": \"" : ", {\"name\": \"") + name + "\", \"data\": [";
    for (size_t k = 0; k < x.size(); k++) { snprintf(number, 40, k ? ", \"%a\"" : "\"%a\"", x[k]); out += number; }
    out += "]}";
  }
  return "[" + out + "]";
}
int main() {
  std::map<string, Run> runs;
  for (string line; std::getline(std::cin, line);) {
    for (char& c : line) if (string("{}[]\",:").find(c) != string::npos) c = ' ';
    std::istringstream in(line);
    vector<string> word;
    for (string w; in >> w;) word.push_back(w);
    string what = word[1], answer = "{}";
    if (what == "hello") answer = R"({"name": "C++", "supports": [], "accumulators": true, "set_lr": true})";
    Run& run = runs[what == "hello" ? "" : word[3]];
    if (what == "start") {
      size_t k = 5;  // behind do start run 1 options
      for (; word[k] != "params"; k += 2) run.options[word[k]] = std::stod(word[k + 1]);
      run.theta = tree(word, k + 1);
      for (auto& [name, x] : run.theta) run.e_g2[name] = run.e_delta2[name] = vector<float>(x.size());
    }
    if (what == "step") step(run, tree(word, 5));
    if (what == "set_lr") run.options["lr"] = std::stod(word[5]);
    if (what == "params") answer = "{\"params\": " + json(run.theta) + "}";
    if (what == "accumulators") answer = "{\"e_g2\": " + json(run.e_g2) + ", \"e_delta2\": " + json(run.e_delta2) + "}";
    std::cout << answer << std::endl;
  }
}
